"""Swarms in virtual time: machines that come and go by chance, and the project's own code to decide for each of them.

What is real: node.placement (every decision), swarm.discovery's FactTable (who is known, until when), swarm.routing
(every route), node.hosting's sum of what fits. What is modelled: how long news, loading and lives take, and that all
nodes see the same table, some time after its facts were said. Same seed, same table of results.
"""
