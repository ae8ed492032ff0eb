// The lanes: their heads, their answers, the tabs of a narrow screen, and the marks where they part.
import { Answer } from './answer.js';
import { $, el, laneClass } from './dom.js';
import { LaneHead } from './head.js';
import { divergence } from './diff.js';

const HINTS = {
  base: 'The model as it is answers here.',
  prompt: 'The same model answers here, asked by a system prompt.',
  steered: 'The same model answers here with a direction added while it writes.',
};
const STICK_PX = 80; // nearer than this to the end, the board follows the text

export class Board {
  heads = new Map();
  answers = new Map();
  compared = false;
  #forked = new Map();
  #stale = new Set();
  #frame = 0;

  /** `page` is what lanes and answers talk to; see main.js. */
  constructor(settings, page) {
    this.settings = settings;
    this.page = page;
    this.draw();
  }

  get lanes() { return this.settings.lanes; }
  get first() { return this.lanes[0]; }
  lane(key) { return this.lanes.find(lane => lane.key === key); }

  /** Draw heads, tabs and columns anew; answers that exist stay as they are. */
  draw() {
    const heads = new Map(), answers = new Map();
    for (const lane of this.lanes) {
      const head = new LaneHead(lane, this.page);
      head.open = this.heads.get(lane.key)?.open ?? 0;
      if (head.open) head.draw();
      heads.set(lane.key, head);
      answers.set(lane.key, this.answers.get(lane.key) ?? new Answer(lane, this.page));
      answers.get(lane.key).element.setAttribute('aria-label', `${lane.name}, answer`);
    }
    Object.assign(this, { heads, answers });
    $('heads').replaceChildren(...[...heads.values()].map(head => head.element));
    $('answers').replaceChildren(...[...answers.values()].map(answer => answer.element));
    this.#drawTabs();
    for (const lane of this.lanes) this.#drawLane(lane.key);
    this.remark();
  }

  #drawTabs() {
    const shown = this.answers.has($('board').dataset.show) ? $('board').dataset.show : this.lanes.at(-1).key;
    $('lane-tabs').replaceChildren(...this.lanes.map(lane =>
      el('button', { class: laneClass(lane), type: 'button', 'data-lane': lane.key, onclick: () => this.show(lane.key) },
        el('span', { class: 'lane-key' }, lane.key), el('span', { class: 'tab-name' }, lane.name), el('span', { class: 'tab-state' }))));
    this.show(shown);
  }

  show(key) {
    $('board').dataset.show = key;
    for (const tab of $('lane-tabs').children) tab.setAttribute('aria-pressed', String(tab.dataset.lane === key));
  }

  #drawLane(key) {
    const answer = this.answers.get(key);
    this.heads.get(key).drawState(answer);
    const tab = $('lane-tabs').querySelector(`[data-lane="${key}"] .tab-state`);
    if (tab && Boolean(tab.firstChild) !== answer.busy) tab.replaceChildren(...(answer.busy ? [el('span', { class: 'spin', 'aria-hidden': 'true' })] : []));
    if (!answer.started && !this.page.loading) answer.hint(this.#hint(this.lane(key)));
  }

  #hint(lane) {
    if (lane.interventions.some(i => i.on)) return HINTS.steered;
    return lane.system_prompt ? HINTS.prompt : HINTS.base;
  }

  // ---- while a run writes ----

  begin(keys) {
    for (const key of keys) this.answers.get(key)?.begin();
    for (const lane of this.lanes) this.#drawLane(lane.key);
    this.remark();
  }

  take(event) { this.answers.get(event.lane)?.take(event); }

  /** Something about a lane changed: its state is drawn once per frame. */
  changed(lane) {
    this.#stale.add(lane.key);
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      for (const key of this.#stale) if (this.answers.has(key)) this.#drawLane(key);
      this.#stale.clear();
      this.#follow();
      this.page.counted();
    });
  }

  /** A lane's new tokens are on the page: look whether it has parted from the first. */
  drawn(lane) { this.#fork(lane.key); }

  #fork(key) {
    const keys = key === this.first.key ? this.lanes.slice(1).map(lane => lane.key) : [key];
    for (const other of keys) this.#forkOne(other);
  }

  #forkOne(key) {
    if (this.compared || this.#forked.has(key)) return;
    const base = this.answers.get(this.first.key), answer = this.answers.get(key);
    const index = divergence(base.ids, answer.ids, Boolean(base.ended && answer.ended));
    if (index === null || !base.tokens.length || !answer.tokens.length) return;
    const drawnFar = index < base.drawnTokens + 1 && index < answer.drawnTokens + 1;
    if (!drawnFar) return;
    this.#forked.set(key, index);
    const lane = this.lane(key), place = index + 1;
    base.mark(index, lane, `Lane ${key} diverges here, token ${place}`, () => answer.goTo(index));
    answer.mark(index, lane, `Diverges from lane ${this.first.key} here, token ${place}`, () => base.goTo(index));
  }

  remark() {
    this.#forked.clear();
    for (const answer of this.answers.values()) answer.unmark();
    for (const lane of this.lanes.slice(1)) this.#forkOne(lane.key);
  }

  #follow() {
    const board = $('board');
    if (board.scrollHeight - board.clientHeight - board.scrollTop < STICK_PX) board.scrollTop = board.scrollHeight;
  }

  // ---- reading ----

  recolour() { for (const answer of this.answers.values()) answer.recolour(); }

  /** Show every lane but the first as its differences from the first. */
  compare(on) {
    this.compared = on;
    const reference = this.answers.get(this.first.key);
    for (const lane of this.lanes) this.answers.get(lane.key).compare(on && lane.key !== this.first.key ? () => reference.text : null);
    this.remark();
  }

  get busy() { return [...this.answers.values()].some(answer => answer.busy); }
  get any() { return [...this.answers.values()].some(answer => answer.started); }

  clear() {
    for (const answer of this.answers.values()) answer.clear();
    for (const lane of this.lanes) this.#drawLane(lane.key);
    this.#forked.clear();
  }
}
