"""Single experts on other machines: who has them, who is asked, and the answers to those who ask this node.

Promises that every expert a row was routed to has answered, whoever it was that did, or that the call fails with an
error that names layer and expert; never that one is left out. Calls leave nothing behind: they are hedged and asked
again at will. Of the stage it uses the compute thread and the rule of shares; it knows no sessions, no routes and no
attention.
"""

from node.experts.choice import choose_hosts
from node.experts.directory import Directory, Host
from node.experts.dispatcher import Dispatcher
from node.experts.host import ExpertHost, ExpertHostConfig
from node.experts.pace import Pace

__all__ = ["Directory", "Dispatcher", "ExpertHost", "ExpertHostConfig", "Host", "Pace", "choose_hosts"]
