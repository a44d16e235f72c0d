// The conversation's turns on the page, and where it is scrolled to.

import { path, siblings } from "./conversation.js";
import { TurnView, emptyState } from "./turn.js";

const NEAR_END_PX = 80;

export class Transcript {
  // scroller: the element that scrolls; list: where the turns go; toEnd: the button that leads back down.
  constructor(scroller, list, toEnd, actions) {
    this.scroller = scroller;
    this.list = list;
    this.toEnd = toEnd;
    this.actions = { ...actions, redraw: () => this.show(this.conversation, this.models) };
    this.views = new Map();
    this.conversation = null;
    this.frame = 0;
    this.follows = true; // whether what is written is kept in sight
    scroller.addEventListener("scroll", () => this.noticeScroll(), { passive: true });
    toEnd.addEventListener("click", () => this.scrollToEnd());
  }

  show(conversation, models) {
    this.models = models;
    if (conversation !== this.conversation) {
      this.conversation = conversation;
      this.views.clear();
      this.follows = true;
    }
    const turns = path(conversation);
    const views = turns.map((turn, position) => {
      const view = this.views.get(turn.id) ?? new TurnView(turn, this.actions);
      this.views.set(turn.id, view);
      view.update(siblings(conversation, turn), position === turns.length - 1);
      return view.element;
    });
    this.list.classList.toggle("busy", turns.some((turn) => turn.role === "assistant" && turn.reason === null));
    this.place(views.length ? views : [emptyState(models.chosen, models.canChat, this.actions.begin)]);
    this.keepInSight();
  }

  // Nodes that stay are not touched: to move one takes the focus from a field in it.
  place(elements) {
    const { children } = this.list;
    let same = 0;
    while (same < elements.length && children[same] === elements[same]) same += 1;
    while (children.length > same) children[same].remove();
    this.list.append(...elements.slice(same));
  }

  // A turn of this conversation has grown; drawn with the next frame.
  grew(turn) {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (turn.reason !== null) return;
      this.views.get(turn.id)?.writeMore();
      this.keepInSight();
    });
  }

  editLast() {
    const last = path(this.conversation).filter((turn) => turn.role === "user").at(-1);
    if (last) this.views.get(last.id)?.edit();
  }

  scrollToEnd() {
    this.follows = true;
    this.keepInSight();
  }

  keepInSight() {
    if (this.follows) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.noticeScroll();
  }

  noticeScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const isNearEnd = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    if (isNearEnd) this.follows = true;
    else if (scrollTop < (this.lastTop ?? 0)) this.follows = false; // scrolled up by hand
    this.lastTop = scrollTop;
    this.toEnd.hidden = isNearEnd;
  }
}
