// Two prompts token by token, and which token of the corrupted one stands for which of the clean one. Pairs are mended by
// dragging, by two taps, or by keys. Tokens are hostile text: text nodes only. Knows no server.
import { el } from '../experiments/dom.js';
import { visible } from './words.js';

/** Pair corrupted token `j` with clean token `i` (null: with none). Pairs never cross: those that would are dropped. */
export function paired(pairs, i, j) {
  const kept = pairs.filter(([a, b]) => b !== j && a !== i && (i === null || (a < i) === (b < j)));
  return (i === null ? kept : [...kept, [i, j]]).sort((one, other) => one[0] - other[0]);
}

/** The pairs as columns {clean, corrupted}, of which one may be null, in the order of both texts. */
export function columns(nClean, nCorrupted, pairs) {
  const made = [];
  let a = 0, b = 0;
  for (const [i, j] of [...pairs, [nClean, nCorrupted]]) {
    while (a < i) made.push({ clean: a++, corrupted: null });
    while (b < j) made.push({ clean: null, corrupted: b++ });
    if (i < nClean) made.push({ clean: a++, corrupted: b++ });
  }
  return made;
}

/** What the pairs leave out, in words. */
export function summary(nClean, nCorrupted, pairs) {
  const lone = [nClean - pairs.length, nCorrupted - pairs.length];
  const counts = `${nClean} clean and ${nCorrupted} corrupted tokens, ${pairs.length} in pairs`;
  return lone[0] || lone[1] ? `${counts}. ${lone[0]} clean and ${lone[1]} corrupted ${lone[0] + lone[1] === 1 ? 'token is' : 'tokens are'} left alone and will not be attributed.` : `${counts}.`;
}

export class Alignment {
  /** `changed(pairs, problem)` is called whenever a person mends something; `problem` says why nothing changed. */
  constructor(root, changed) {
    Object.assign(this, { root, changed, held: null, focus: null });
    root.addEventListener('keydown', event => this.key(event));
    root.addEventListener('pointerdown', event => this.grab(event));
    root.addEventListener('pointermove', event => this.drag(event));
    document.addEventListener('pointerup', event => this.drop(event));
  }

  show({ clean, corrupted, pairs }) {
    Object.assign(this, { clean, corrupted, pairs, held: null });
    this.draw();
  }

  draw() {
    const found = columns(this.clean.length, this.corrupted.length, this.pairs);
    const list = el('ol', { class: 'alignment', 'aria-label': 'Tokens of both prompts in pairs' });
    found.forEach(({ clean, corrupted }, n) => list.append(this.column(clean, corrupted, n, found)));
    this.root.replaceChildren(list);
    if (this.focus !== null) this.root.querySelector(`[data-corrupted="${this.focus}"]`)?.focus();
  }

  column(i, j, n) {
    const alone = i === null || j === null;
    const same = !alone && this.clean[i].id === this.corrupted[j].id;
    const state = alone ? 'alone' : same ? 'same' : 'differs';
    return el('li', { class: `pair is-${state}` }, el('span', { class: 'place' }, String(n)), this.cleanToken(i), this.corruptedToken(j, i));
  }

  cleanToken(i) {
    if (i === null) return el('span', { class: 'gap', 'aria-label': 'no clean token' }, '·');
    return el('button', {
      type: 'button', class: 'tok', tabindex: this.held === null ? -1 : 0, 'data-clean': i, 'aria-label': `Clean token ${i}: ${visible(this.clean[i].text)}`,
      onclick: () => this.held !== null && this.pair(i, this.held),
    }, visible(this.clean[i].text));
  }

  corruptedToken(j, i) {
    if (j === null) return el('span', { class: 'gap', 'aria-label': 'no corrupted token' }, '·');
    const says = i === null ? 'without a partner' : `with clean token ${i}, ${visible(this.clean[i].text)}`;
    return el('button', {
      type: 'button', class: `tok${this.held === j ? ' is-held' : ''}`, 'data-corrupted': j, tabindex: j === (this.focus ?? 0) ? 0 : -1,
      'aria-pressed': String(this.held === j), 'aria-label': `Corrupted token ${j}: ${visible(this.corrupted[j].text)}, ${says}`,
      onclick: () => this.hold(j),
    }, visible(this.corrupted[j].text));
  }

  // ---- dragging, by mouse and pen; a finger scrolls, and presses one token after the other ----

  grab({ target, pointerType, button }) {
    const j = target.dataset?.corrupted;
    this.dragged = j !== undefined && pointerType !== 'touch' && button === 0 ? Number(j) : null;
  }

  over({ clientX, clientY }) {
    return this.dragged === null || this.dragged === undefined ? null : document.elementFromPoint(clientX, clientY)?.closest('[data-clean]');
  }

  drag(event) {
    const over = this.over(event);
    this.root.querySelectorAll('.is-lit').forEach(pair => pair.classList.remove('is-lit'));
    if (over) over.parentNode.classList.add('is-lit');
  }

  drop(event) {
    const over = this.over(event), j = this.dragged;
    this.dragged = null;
    if (over && this.root.contains(over)) this.pair(Number(over.dataset.clean), j);
  }

  hold(j) {
    this.focus = j;
    this.held = this.held === j ? null : j;
    this.draw();
  }

  pair(i, j) {
    if (!Number.isInteger(j) || j < 0 || j >= this.corrupted.length) return;
    this.held = null;
    this.focus = j;
    const next = paired(this.pairs, i, j);
    const last = [this.clean.length - 1, this.corrupted.length - 1];
    if (next.some(([a, b]) => a === last[0] && b === last[1])) {
      this.pairs = next;
      this.changed(next, '');
    } else this.changed(this.pairs, 'The last tokens stay a pair: the metric is read there.');
    this.draw();
  }

  key(event) {
    const at = event.target.dataset?.corrupted;
    if (at === undefined) return;
    const j = Number(at), step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && (event.shiftKey || event.altKey)) this.move(j, step);
    else if (step) this.go(j + step);
    else if (event.key === 'Delete' || event.key === 'Backspace') this.pair(null, j);
    else if (event.key === 'Escape' && this.held !== null) this.hold(this.held);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  go(j) {
    if (j < 0 || j >= this.corrupted.length) return;
    this.focus = j;
    for (const button of this.root.querySelectorAll('[data-corrupted]')) button.tabIndex = Number(button.dataset.corrupted) === j ? 0 : -1;
    this.root.querySelector(`[data-corrupted="${j}"]`).focus();
  }

  /** One clean token further; a token without a partner begins beside its neighbours' partners. */
  move(j, step) {
    const now = this.pairs.find(([, b]) => b === j)?.[0];
    const before = this.pairs.filter(([, b]) => b < j).at(-1)?.[0] ?? -1;
    const after = this.pairs.find(([, b]) => b > j)?.[0] ?? this.clean.length;
    const next = now === undefined ? (step > 0 ? before + 1 : after - 1) : now + step;
    if (next >= 0 && next < this.clean.length) this.pair(next, j);
  }
}
