// The head of a lane: its name, its state, its interventions as chips, and the controls of the chip that is open.
import { el, icon, iconButton, laneClass } from './dom.js';
import { LaneBehaviors } from './behaviors.js';
import { InterventionPanel } from './intervention.js';
import { strengthText } from './scale.js';

const NOTES = {
  first: 'Nothing applied. The other lanes are compared with this one.',
  other: 'Nothing applied yet. Add a vector, or a system prompt.',
};

export class LaneHead {
  open = 0;
  panel = null;

  /** `page` offers usedBy, library, addVector, addFeature, loadPreset, savePreset, changed, moved, rerun, canRerun, stop, duplicate, removeLane, rename and isFirst. */
  constructor(lane, page) {
    this.lane = lane;
    this.page = page;
    this.behaviors = new LaneBehaviors(lane, page, () => this.draw());
    this.state = el('span', { class: 'lane-state' });
    this.action = el('span', { class: 'lane-action' });
    this.title = el('div', { class: 'lane-title' });
    this.chips = el('div', { class: 'chips' });
    this.body = el('div', { class: 'lane-body' });
    this.element = el('section', { class: `lane-head ${laneClass(lane)}`, 'data-lane': lane.key, 'aria-label': `Lane ${lane.key}, ${lane.name}` }, this.title, this.chips, this.body);
    this.draw();
  }

  draw() {
    this.#drawTitle();
    this.#drawChips();
    this.#drawBody();
  }

  /** What the lane does now: `answer` is its Answer. */
  drawState(answer) {
    const { lane } = this;
    const num = text => el('span', { class: 'num' }, text);
    const tokens = el('span', { class: answer.rate ? 'lane-count' : null }, num(String(answer.tokens.length)), ` tok${answer.rate ? ' · ' : ''}`);
    const rate = el('span', {}, tokens, ...(answer.rate ? [num(answer.rate.toFixed(1)), ' tok/s'] : []));
    if (answer.busy) {
      this.state.replaceChildren(el('span', { class: 'spin', 'aria-hidden': 'true' }), answer.tokens.length ? rate : 'waiting');
      this.#act('stop', `Stop lane ${lane.key}`, () => this.page.stop(lane.key));
    } else if (answer.ended) {
      const state = answer.ended.state;
      const mark = state === 'finished' ? 'check' : state === 'cancelled' ? 'stop' : 'warn';
      this.state.replaceChildren(icon(mark), answer.tokens.length ? rate : state === 'cancelled' ? 'stopped' : state);
      this.#act('redo', `Run lane ${lane.key} again`, () => this.page.rerun(lane.key));
    } else {
      this.state.replaceChildren();
      if (this.page.canRerun) return this.#act('play', `Run lane ${lane.key} alone`, () => this.page.rerun(lane.key));
      this.action.replaceChildren();
      this.acts = null;
    }
  }

  #act(name, label, run) {
    if (this.acts === name) return;
    this.acts = name;
    this.action.replaceChildren(iconButton(name, label, run));
  }

  // ---- title ----

  #drawTitle() {
    const { lane } = this;
    const name = el('h2', {}, lane.name);
    this.title.replaceChildren(el('span', { class: 'lane-key', 'aria-hidden': 'true' }, lane.key), name, this.state, this.action, this.#menu(name));
  }

  #menu(name) {
    const { lane, page } = this;
    const item = (text, run, note = '') => el('button', { type: 'button', onclick: () => { menu.open = false; run(); } }, text, note && el('small', { class: 'long' }, note));
    const menu = el('details', { class: 'dropdown lane-menu' },
      el('summary', { class: 'btn btn-ghost btn-icon btn-sm', 'aria-label': `More for lane ${lane.key}` }, icon('dots')),
      el('div', { class: 'dropdown-menu' },
        item('Rename', () => this.#rename(name)),
        item('Duplicate', () => page.duplicate(lane.key)),
        lane.system_prompt ? null : item('Add a system prompt', () => this.#editPrompt()),
        item('Watch for a behavior', () => page.addBehavior(lane.key), 'and correct it where it shows'),
        el('hr'),
        item('Load a preset', () => page.loadPreset(lane.key), 'in place of what is in this lane'),
        item('Save as a preset', () => page.savePreset(lane.key), 'programs call it as a model'),
        el('hr'),
        item('Remove lane', () => page.removeLane(lane.key))));
    return menu;
  }

  #rename(name) {
    const input = el('input', { class: 'form-control', value: this.lane.name, maxlength: 60, 'aria-label': `Name of lane ${this.lane.key}` });
    const done = keep => {
      if (keep && input.value.trim()) this.page.rename(this.lane.key, input.value.trim());
      else this.#drawTitle();
    };
    input.addEventListener('keydown', event => {
      if (event.key === 'Enter' || event.key === 'Escape') { event.preventDefault(); input.onblur = null; done(event.key === 'Enter'); }
    });
    input.onblur = () => done(true);
    name.replaceWith(input);
    input.select();
  }

  // ---- chips ----

  #drawChips() {
    const { lane } = this;
    const chips = lane.interventions.map((intervention, i) => this.#chip(intervention, i));
    const prompt = lane.system_prompt ? [this.#promptChip()] : [];
    const add = el('button', { class: `btn btn-sm chip-add${lane.interventions.length ? ' btn-icon' : ''}`, type: 'button', 'aria-label': `Add intervention to lane ${lane.key}`, onclick: () => this.page.addVector(lane.key) }, icon('plus'), lane.interventions.length ? '' : 'Intervention');
    const feature = this.page.library.sources.length ? [el('button', { class: 'btn btn-sm btn-icon chip-add-feature', type: 'button', 'aria-label': `Add a feature to lane ${lane.key}`, title: 'Add a feature', onclick: () => this.page.addFeature(lane.key) }, icon('feature'))] : [];
    this.chips.replaceChildren(...prompt, ...chips, ...this.behaviors.chips(), add, ...feature);
  }

  #chip(intervention, i) {
    const vector = this.page.usedBy(intervention);
    const name = vector?.name ?? 'missing vector';
    const reason = !vector ? 'This vector was deleted or is not yours' : vector.usable ? `${name}${vector.feature ? `, feature ${vector.where}${vector.proposed ? '; the model proposed this label' : ''}` : ''}` : vector.feature ? `The autoencoder ${vector.feature.source} is not there for this model` : `${name} was made on ${vector.model_id} and means nothing in another model`;
    const open = i === this.open;
    return el('span', { class: `chip${open ? ' chip-on' : ''}` },
      el('button', { type: 'button', 'aria-expanded': String(open), title: reason, onclick: () => this.#show(open ? -1 : i) },
        icon(vector?.usable ? (vector.feature ? 'feature' : 'vector') : 'warn'), el('b', {}, name), el('span', { class: 'num' }, `L${intervention.layer ?? vector?.recommended_layer ?? '?'} · ${strengthText(intervention)}`)),
      el('button', { class: 'x', type: 'button', 'aria-label': `Remove ${name} from lane ${this.lane.key}`, onclick: () => this.#remove(i) }, icon('x')));
  }

  #promptChip() {
    return el('span', { class: 'chip chip-on' },
      el('button', { type: 'button', onclick: () => this.#editPrompt() }, icon('msg'), el('b', {}, 'System prompt')),
      el('button', { class: 'x', type: 'button', 'aria-label': `Remove the system prompt of lane ${this.lane.key}`, onclick: () => this.#setPrompt('') }, icon('x')));
  }

  #show(i) {
    this.open = i;
    this.#drawChips();
    this.#drawBody();
    this.chips.querySelectorAll('.chip:not(.chip-on) > button:first-child, .chip-on > button:first-child')[0]?.focus();
  }

  #remove(i) {
    this.lane.interventions.splice(i, 1);
    this.open = Math.min(this.open, this.lane.interventions.length - 1);
    this.draw();
    this.page.changed(this.lane.key);
    this.chips.querySelector('.chip-add').focus();
  }

  // ---- body ----

  #drawBody() {
    const { lane } = this;
    const intervention = lane.interventions[this.open];
    this.panel = intervention ? new InterventionPanel(intervention, this.page.usedBy(intervention), live => this.#moved(live), this.page.conditionVectors()) : null;
    const nothing = !lane.interventions.length && !lane.system_prompt && !lane.behaviors.length;
    this.body.replaceChildren(
      ...(lane.system_prompt ? [this.#promptBox()] : []),
      ...(this.panel ? [this.panel.element] : []),
      ...(intervention ? this.#foreign(this.page.usedBy(intervention)) : []),
      ...this.behaviors.box(),
      ...(nothing ? [this.#nothing()] : []));
  }

  #foreign(vector) {
    if (!vector || vector.usable) return [];
    if (vector.feature) return [el('p', { class: 'lane-note neg' }, `The autoencoder ${vector.feature.source} is not there for this model, so this lane will be refused. Remove it, or choose its model.`)];
    return [el('p', { class: 'lane-note neg' }, `Made on ${vector.model_id}: in another model it means nothing, so this lane will be refused. Remove it, or choose that model.`)];
  }

  #nothing() {
    if (this.page.isFirst(this.lane.key)) return el('p', { class: 'lane-note' }, NOTES.first);
    return el('p', { class: 'lane-note' }, NOTES.other, ' ', el('button', { class: 'linkish', type: 'button', onclick: () => this.#editPrompt() }, 'Write a system prompt'));
  }

  #moved(live) {
    this.#drawChips();
    this.page.moved(this.lane.key, live);
  }

  #promptBox() {
    return el('button', { class: 'sysprompt', type: 'button', onclick: () => this.#editPrompt() }, el('span', { class: 'visually-hidden' }, 'Edit system prompt: '), el('span', { class: 'sysprompt-text' }, this.lane.system_prompt));
  }

  #editPrompt() {
    const box = el('textarea', { class: 'form-control sysprompt-edit', rows: 3, 'aria-label': `System prompt of lane ${this.lane.key}`, placeholder: 'For example: Stay calm and patient.' });
    box.value = this.lane.system_prompt;
    box.addEventListener('keydown', event => {
      if (event.key === 'Escape' || (event.key === 'Enter' && (event.ctrlKey || event.metaKey))) { event.preventDefault(); event.stopPropagation(); box.blur(); }
    });
    box.addEventListener('blur', () => this.#setPrompt(box.value.trim()));
    this.body.querySelector('.sysprompt, .lane-note')?.remove();
    this.body.prepend(box);
    box.focus();
  }

  #setPrompt(text) {
    const changed = this.lane.system_prompt !== text;
    this.lane.system_prompt = text;
    this.draw();
    if (changed) this.page.changed(this.lane.key);
  }
}
