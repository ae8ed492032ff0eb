// One lane's answer: text that grows by tokens, the marks in it, and the facts at its foot.
//
// Tokens wait in a queue and reach the page once per animation frame, each as a text node in a span of its own.
import { firedClass, firedLine } from './behaviors.js';
import { diff } from './diff.js';
import { copy, el, figure, icon, iconButton, laneClass } from './dom.js';
import { drawReceipt } from './receipt.js';
import { drawStrip } from './strip.js';
import { Traces, watchTint } from './traces.js';
import { toast } from '../base.js';

const STEPS = [-0.5, -1.5, -3, -5]; // nats: the borders of the four tints
const BURST_MS = 250; // what comes at once after a reload says nothing about the speed of writing
const ENDS = {
  stop: 'Stopped by itself', constraint: 'The constraint left nothing to write', watch: 'Stopped by a behavior', length: 'Reached the most new tokens', cancelled: 'Stopped by you; the text so far is kept',
};

export class Answer {
  tokens = [];
  prompt_tokens = 0;
  seed = null;
  ended = null;
  busy = false;
  #queue = [];
  #frame = 0;
  #spans = [];
  #diffWith = null;
  #diffAt = 0;

  /** `page` offers nameOf(applied), rerun(key), removeChips(key) and changed(lane). */
  constructor(lane, page) {
    this.lane = lane;
    this.page = page;
    this.out = el('div', { class: 'out' });
    this.caret = el('span', { class: 'caret', 'aria-hidden': 'true' });
    this.preview = el('div', { class: 'preview-box', hidden: true });
    this.problem = el('div', { class: 'answer-problem', hidden: true });
    this.strip = el('div', { class: `tokstrip ${laneClass(lane)}`, id: `strip-${lane.key}`, hidden: true });
    this.receipt = el('div');
    this.traces = new Traces(this, page);
    this.bar = el('div', { class: 'answer-bar', hidden: true });
    this.element = el('article', { class: `answer ${laneClass(lane)}`, 'data-lane': lane.key, 'aria-label': `${lane.name}, answer`, 'aria-busy': 'false' },
      this.preview, this.out, this.traces.element, this.problem, el('div', { class: 'answer-foot stack' }, this.strip, this.receipt, this.bar));
    this.out.addEventListener('mouseover', event => this.#point(event.target));
    this.out.addEventListener('focusin', event => this.#point(event.target));
    this.out.addEventListener('keydown', event => this.#walk(event));
    this.clear();
  }

  get text() { return this.tokens.map(token => token.s).join('') + (this.ended?.s ?? ''); }
  get ids() { return this.tokens.map(token => token.id); }
  get started() { return this.busy || this.tokens.length > 0 || this.ended !== null; }
  get rate() {
    if (this.ended?.rate) return this.ended.rate;
    const seconds = (this.lastAt - this.paceAt) / 1000;
    return seconds > 0.5 ? (this.tokens.length - this.paceFrom) / seconds : 0;
  }

  // ---- life ----

  clear() {
    cancelAnimationFrame(this.#frame);
    Object.assign(this, { tokens: [], ended: null, busy: false, prompt_tokens: 0, seed: null, watches: [], scores: [], firings: [], firstAt: 0, lastAt: 0, paceAt: 0, paceFrom: 0 });
    this.#queue = [];
    this.#spans = [];
    this.#frame = 0;
    this.out.replaceChildren();
    this.out.hidden = false;
    this.hidePreview();
    this.traces.clear();
    for (const part of [this.problem, this.receipt]) part.replaceChildren();
    for (const part of [this.problem, this.strip, this.bar]) part.hidden = true;
    this.element.setAttribute('aria-busy', 'false');
  }

  hint(text) { this.out.replaceChildren(el('p', { class: 'answer-hint' }, text)); }

  begin() {
    this.clear();
    this.busy = true;
    this.element.setAttribute('aria-busy', 'true');
    this.out.append(this.caret);
  }

  /** Take one event of the run that is about this lane. */
  take(event) {
    if (event.t === 'started') this.#start(event);
    else if (event.t === 'token') this.#append(event);
    else if (event.t === 'scored') this.#score(event);
    else if (event.t === 'fired') this.#fire(event.firings);
    else this.#end(event);
    this.page.changed(this.lane);
  }

  #start(event) {
    if (!this.busy) this.begin();
    this.prompt_tokens = event.prompt_tokens;
    this.seed = event.seed;
    this.watches = event.watches ?? [];
  }

  /** What the watches read, by position; a token that is written again is read again. */
  #score({ start, values }) {
    values.forEach((scores, i) => {
      this.scores[start + i] = scores;
      this.#retint(start + i - this.prompt_tokens);
    });
    this.traces.changed();
  }

  #tint(i) {
    const name = this.page.coloured;
    if (!name) return tint(this.tokens[i], this.page.colour);
    return watchTint(this.scoresOf(i), this.watches.indexOf(name), this.page.watchScale(name));
  }

  #retint(i) {
    if (this.#spans[i] && this.page.coloured) this.#spans[i].className = this.#classOf(i);
  }

  /** The largest that a watch has read in this answer. */
  largest(name) {
    const column = this.watches.indexOf(name);
    return column < 0 ? 0 : this.tokens.reduce((most, _, i) => Math.max(most, this.scoresOf(i)?.[column] ?? 0), 0);
  }

  /** A token fires after it was written, or before it is shown where it was held back. */
  #fire(firings) {
    this.firings.push(...firings);
    for (const { position } of firings) {
      const index = position - this.prompt_tokens;
      if (this.#spans[index]) this.#spans[index].className = this.#classOf(index);
    }
  }

  firingsAt(index) { return this.firings.filter(firing => firing.position - this.prompt_tokens === index); }

  #classOf(index) { return `t ${this.#tint(index)}${firedClass(this.firingsAt(index))}`; }

  /** What was read at token `index` of the answer: one value per watch, or null while it is not known. */
  scoresOf(index) { return this.scores[this.prompt_tokens + index] ?? null; }

  #append(token) {
    if (!this.busy) this.begin();
    this.lastAt = performance.now();
    this.firstAt ||= this.lastAt;
    this.tokens.push(token);
    if (this.lastAt - this.firstAt < BURST_MS) Object.assign(this, { paceAt: this.lastAt, paceFrom: this.tokens.length });
    this.#queue.push(token);
    this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  #end(event) {
    if (!this.busy) this.begin();
    this.ended = event;
    this.busy = false;
    this.#flush();
    this.caret.remove();
    if (event.s) this.out.append(event.s);
    this.element.setAttribute('aria-busy', 'false');
    if (event.error) this.#drawProblem(event.error, event.state);
    if (event.receipt) this.drawReceipt();
    this.traces.changed();
    if (this.page.coloured) this.page.rescale();
    this.#drawBar(event);
    if (this.#diffWith !== null) this.#drawDiff();
  }

  #flush() {
    this.#frame = 0;
    if (this.#diffWith !== null) {
      this.#queue = [];
      if (performance.now() - this.#diffAt > 500) this.#drawDiff();
      return;
    }
    const added = document.createDocumentFragment();
    for (const token of this.#queue) added.append(this.#span(token, this.#spans.length));
    this.#queue = [];
    if (this.caret.isConnected) this.caret.before(added);
    else this.out.append(added);
    this.page.drawn(this.lane);
  }

  #span(token, index) {
    const span = el('span', { class: this.#classOf(index), 'data-i': index, tabindex: index === 0 ? '0' : '-1' });
    span.textContent = token.s;
    this.#spans.push(span);
    return span;
  }

  #redraw() {
    this.#spans = [];
    this.#queue = [...this.tokens];
    this.out.replaceChildren(...(this.busy ? [this.caret] : []));
    this.#flush();
    if (this.ended?.s) this.out.append(this.ended.s);
  }

  // ---- reading ----

  recolour() {
    this.#spans.forEach((span, i) => { span.className = this.#classOf(i); });
    this.traces.draw();
  }

  /** Show the words that differ from `reference()`, a text; null shows the plain answer. */
  compare(reference) {
    const was = this.#diffWith;
    this.#diffWith = reference;
    if (!this.started) return;
    if (reference !== null) this.#drawDiff();
    else if (was !== null) this.#redraw();
  }

  #drawDiff() {
    this.#diffAt = performance.now();
    this.#spans = [];
    const tags = { same: 'span', added: 'ins', removed: 'del' };
    this.out.replaceChildren(...diff(this.#diffWith(), this.text).map(part => el(tags[part.kind], {}, part.text)), ...(this.busy ? [this.caret] : []));
  }

  /** Put a mark before token `index`: lane `other` parts from this one, or this one from the first, there. */
  mark(index, other, title, onclick) {
    if (this.#diffWith !== null) return;
    const button = el('button', { class: `fork ${laneClass(other)}`, type: 'button', title, 'data-fork': other.key, onclick },
      icon('fork'), other.key, el('span', { class: 'visually-hidden' }, ` ${title}`));
    const before = this.#spans[index];
    if (before) before.before(button);
    else if (this.caret.isConnected) this.caret.before(button);
    else this.out.append(button);
  }

  unmark() { this.out.querySelectorAll('.fork').forEach(mark => mark.remove()); }

  get drawnTokens() { return this.#spans.length; }

  goTo(index) {
    const span = this.#spans[Math.min(index, this.#spans.length - 1)];
    if (!span) return;
    span.scrollIntoView({ block: 'center' });
    this.#focus(span);
  }

  #point(target) {
    const span = target instanceof Element ? target.closest('.t') : null;
    const index = span ? Number(span.dataset.i) : -1;
    if (!this.tokens[index]) return;
    this.out.querySelector('[aria-describedby]')?.removeAttribute('aria-describedby');
    span.setAttribute('aria-describedby', this.strip.id);
    const scores = this.scoresOf(index);
    drawStrip(this.strip, this.tokens[index], index + 1, this.watches.map((name, column) => [this.page.watchName(name), scores?.[column]]));
    this.strip.append(...firedLine(this.firingsAt(index)));
  }

  #walk(event) {
    const at = Number(event.target.dataset?.i);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: this.#spans.length - 1 }[event.key];
    if (event.altKey || Number.isNaN(at) || to === undefined || !this.#spans[to]) return;
    event.preventDefault();
    this.#focus(this.#spans[to]);
  }

  #focus(span) {
    this.out.querySelector('.t[tabindex="0"]')?.setAttribute('tabindex', '-1');
    span.setAttribute('tabindex', '0');
    span.focus();
  }

  // ---- the foot ----

  drawReceipt() {
    if (!this.ended?.receipt) return;
    const open = this.receipt.querySelector('details')?.open ?? false;
    this.receipt.replaceChildren(drawReceipt(this.ended.receipt, { open, name: this.page.nameOf, systemPrompt: this.lane.system_prompt, promptTokens: this.prompt_tokens,
      watched: this.watches.filter(name => this.page.behaviorOf(name)) }));
  }

  #drawBar(event) {
    const facts = [ENDS[event.reason], event.seconds ? `${figure(event.seconds, 1)} s` : ''].filter(Boolean).join(' · ');
    this.bar.replaceChildren(
      el('span', { class: 'facts' }, facts),
      iconButton('copy', `Copy answer ${this.lane.key}`, async () => {
        toast(await copy(this.text) ? `Answer ${this.lane.key} was copied` : 'The browser did not allow copying', '');
      }));
    this.bar.hidden = !this.tokens.length;
  }

  #drawProblem(error, state) {
    const title = state === 'interrupted' ? `Lane ${this.lane.key} was interrupted` : `Lane ${this.lane.key} could not ${this.tokens.length ? 'finish' : 'run'}`;
    const chips = ['vector_not_found', 'vector_model_mismatch', 'source_not_found', 'source_unusable', 'not_found'].includes(error.code);
    this.problem.replaceChildren(el('div', { class: 'error-panel', role: 'alert' }, icon('warn'), el('div', {},
      el('h3', {}, title), el('p', {}, error.message),
      el('div', { class: 'actions' },
        chips && el('button', { class: 'btn btn-sm', type: 'button', onclick: () => this.page.removeChips(this.lane.key) }, 'Remove its chips'),
        el('button', { class: 'btn btn-sm', type: 'button', onclick: () => this.page.rerun(this.lane.key) }, `Run lane ${this.lane.key} again`),
        el('span', { class: 'rid' }, el('code', {}, error.code))))));
    this.problem.hidden = false;
  }

  // ---- previews ----

  /** Show a preview in place of the answer; the answer stays and comes back with `hidePreview`. */
  showPreview(title, text, busy) {
    const caret = busy ? [el('span', { class: 'caret', 'aria-hidden': 'true' })] : [];
    this.preview.replaceChildren(
      el('p', { class: 'preview-head' }, el('span', { class: 'tag tag-busy' }, 'preview'), el('span', {}, title),
        this.started ? el('button', { class: 'btn btn-ghost btn-sm', type: 'button', onclick: () => this.hidePreview() }, 'Show the answer') : ''),
      el('div', { class: 'out' }, text, ...caret));
    this.preview.hidden = false;
    this.out.hidden = true;
    this.element.classList.add('previewing');
  }

  hidePreview() {
    this.preview.hidden = true;
    this.preview.replaceChildren();
    this.out.hidden = false;
    this.element.classList.remove('previewing');
  }
}

/** The class that tints a token by how unlikely the model itself found it. */
function tint(token, colour) {
  if (colour !== 'logprob' || token.lp == null) return '';
  const level = STEPS.filter(border => token.lp < border).length;
  return level ? `n${level}` : '';
}
