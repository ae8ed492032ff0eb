// Behaviors in a lane: which are watched for, whether they are corrected, and where they fired.
import { count, el, figure, icon } from './dom.js';
import { Picker } from './picker.js';

const DONE = {
  steer: 'steered', stop: 'stopped', regenerate: 'written again', observe: 'observed',
};
const LISTED = 12; // firings in a receipt; the rest are counted

export class BehaviorPicker extends Picker {
  icon = 'shield';
  none = 'There are no behaviors yet. Make one from pairs that show it and pairs that do not.';

  constructor(library) {
    super('pick-behavior', 'Watch for a behavior', 'behaviors', [el('a', { href: '/behaviors/new/' }, 'Make a new one'), ' from pairs, or ', el('a', { href: '/behaviors/' }, 'look at all of them'), '.']);
    this.library = library;
  }

  get all() { return this.library.behaviors; }
  text = behavior => `${behavior.name} ${behavior.description}`;
  about = behavior => [behavior.does, behavior.description].filter(Boolean).join(' · ');
  facts = behavior => `AUROC ${behavior.auroc.toFixed(2)}`;
}

/** The part of a lane's head that is about behaviors. `page` offers behaviorOf, addBehavior and changed; `draw` draws the head. */
export class LaneBehaviors {
  constructor(lane, page, draw) {
    Object.assign(this, { lane, page, draw });
    lane.behaviors ??= [];
    lane.auto_correct ??= true;
    lane.force_steering ??= [];
  }

  chips() {
    return this.lane.behaviors.map(name => {
      const known = this.page.behaviorOf(name);
      const reason = !known ? 'This behavior was deleted, or is no longer shared' : known.usable ? known.does : `${name} was fitted on another model and means nothing in this one`;
      return el('span', { class: 'chip chip-behavior' },
        el(known ? 'a' : 'span', { class: 'chip-name', title: reason, ...(known ? { href: known.url } : {}) }, icon(known?.usable ? 'shield' : 'warn'), el('b', {}, name)),
        el('button', { class: 'x', type: 'button', 'aria-label': `Do not watch for ${name} in lane ${this.lane.key}`, onclick: () => this.#remove(name) }, icon('x')));
    });
  }

  /** Whether what fires is corrected, and what is steered whatever is read. */
  box() {
    if (!this.lane.behaviors.length) return [];
    const correct = el('input', { type: 'checkbox', checked: this.lane.auto_correct, onchange: () => this.#set({ auto_correct: correct.checked }) });
    return [el('div', { class: 'behavior-box' },
      el('label', { class: 'check check-on' }, correct, 'correct what fires'),
      ...this.lane.behaviors.filter(name => this.page.behaviorOf(name)?.action === 'steer').map(name => this.#force(name)))];
  }

  #force(name) {
    const force = el('input', { type: 'checkbox', checked: this.lane.force_steering.includes(name) });
    force.addEventListener('change', () => {
      const others = this.lane.force_steering.filter(other => other !== name);
      this.#set({ force_steering: force.checked ? [...others, name] : others });
    });
    return el('label', { class: 'check check-on', title: `Steer with ${name} at every token, whatever it reads` }, force, `always ${name}`);
  }

  #set(change) {
    Object.assign(this.lane, change);
    this.page.changed(this.lane.key);
  }

  #remove(name) {
    this.lane.behaviors = this.lane.behaviors.filter(other => other !== name);
    this.lane.force_steering = this.lane.force_steering.filter(other => other !== name);
    this.draw();
    this.page.changed(this.lane.key);
  }
}

// ---- what fired ----

/** The class of a token at which something fired, by what was done: a line under it, never its colour alone. */
export function firedClass(firings) {
  if (!firings.length) return '';
  const actions = new Set(firings.map(firing => firing.action));
  const done = ['stop', 'regenerate', 'steer', 'observe'].find(action => actions.has(action));
  return ` fired fired-${done}`;
}

/** A line about a token for the strip at the foot of its lane. */
export function firedLine(firings) {
  if (!firings.length) return [];
  return [el('p', { class: 'line fired-line' }, icon('shield'), ...firings.map(firing => el('span', {},
    el('b', {}, firing.name), ' read ', el('b', { class: 'num' }, figure(firing.score, 3)), `, ${inWords(firing)}`)))];
}

const inWords = ({ action, dose }) => `${DONE[action] ?? action}${action === 'steer' && dose < 1 ? ` by ${figure(dose)} of the dose` : ''}`;

/** The rows of a receipt: which behaviors were watched for, and each time that one fired. `place` counts from 1. */
export function firedRows(receipt, watched, promptTokens) {
  const fired = receipt.fired ?? [], total = receipt.fired_total ?? fired.length;
  const quiet = watched.filter(name => !fired.some(firing => firing.name === name));
  if (!fired.length && !quiet.length) return [];
  const rows = [el('dt', {}, 'Watched'), el('dd', {}, total ? `fired at ${count(total)} ${total === 1 ? 'token' : 'tokens'}` : 'nothing fired', quiet.length && total ? `; ${quiet.join(', ')} did not` : quiet.length ? `: ${quiet.join(', ')}` : '')];
  for (const firing of fired.slice(0, LISTED)) {
    const at = firing.position - promptTokens;
    rows.push(el('dt', {}, at < 0 ? `Prompt ${firing.position + 1}` : `Token ${at + 1}`),
      el('dd', {}, el('b', {}, firing.name), ' read ', el('span', { class: 'num' }, figure(firing.score, 3)), `, ${inWords(firing)}`));
  }
  if (total > Math.min(fired.length, LISTED)) rows.push(el('dt', {}, ''), el('dd', {}, `and ${count(total - Math.min(fired.length, LISTED))} more`));
  return rows;
}
