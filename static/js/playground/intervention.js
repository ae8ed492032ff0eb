// The controls of one intervention: strength, unit, layer, operation, positions, and what few need.
import { Advanced } from './advanced.js';
import { el } from './dom.js';
import { bounds, convert, HAS_UNIT, notes } from './scale.js';
import { Strength } from './strength.js';

const OPERATIONS = {
  add: 'adds the direction',
  ablate: 'removes the component along it',
  clamp: 'sets the component along it',
  cap: 'limits the component along it',
  floor: 'raises the component along it where it is less',
  affine: 'sets the component along it, from 0, where negative examples lie, to 1, where positive ones do',
  rotate: 'turns the residual to an angle from it, its length kept',
};
const OF_FEATURE = {
  add: 'adds its decoder direction',
  clamp: 'sets its activation',
  floor: 'raises its activation where it is less',
  cap: 'limits its activation',
  ablate: 'removes its activation',
};
const STARTS = { ablate: 1, affine: 1, rotate: 45 }; // strengths of operations that count in units of their own
const PLACES = { all: 'all tokens', generated: 'generated only', prompt: 'prompt only', plain: 'no special tokens', window: 'from token … to' };
const ALL = { prompt: true, generated: true, start: null, stop: null, special: true };

export const placeOf = p => (p.start !== null || p.stop !== null ? 'window' : !p.prompt ? 'generated' : !p.generated ? 'prompt' : !p.special ? 'plain' : 'all');

const FRESH = {
  all: ALL,
  generated: { ...ALL, prompt: false },
  prompt: { ...ALL, generated: false },
  plain: { ...ALL, special: false },
  window: { ...ALL, start: 0, stop: 16 },
};

let made = 0;

export class InterventionPanel {
  /** `moved(live)` is called after every change; `live` says that the strength is being dragged. `others`: see Advanced. */
  constructor(intervention, vector, moved, others = []) {
    Object.assign(this, { intervention, vector, moved });
    this.operations = vector?.feature ? OF_FEATURE : OPERATIONS;
    const name = vector?.name ?? 'this vector';
    const id = `i${++made}`;
    this.strength = new Strength({
      label: `Strength of ${name}`, value: intervention.strength, ...bounds(intervention, vector), changed: value => this.#set({ strength: value }, true),
    });
    this.note = el('p', { class: 'strength-note', id: `${id}-note` });
    this.strength.range.setAttribute('aria-describedby', this.note.id);
    this.unit = this.#units(id);
    this.layer = select(`Layer of ${name}`, this.#layers(), intervention.layer, value => { this.#set({ layer: Number(value) }); this.advanced.draw(); });
    this.operation = select(`Operation of ${name}`, Object.keys(this.operations).map(o => [o, o === 'clamp' && vector?.feature ? 'set' : o, this.operations[o], this.#lacks(o)]), intervention.operation, value => this.#operate(value));
    this.place = select(`Positions of ${name}`, Object.entries(PLACES), placeOf(intervention.positions), value => this.#setPlace(value));
    this.place.classList.add('grow');
    this.window = el('div', { class: 'window' });
    this.advanced = new Advanced(intervention, vector, others, change => this.#adjust(change));
    const on = el('input', { type: 'checkbox', checked: intervention.on, onchange: () => this.#set({ on: on.checked }) });
    this.element = el('div', { class: 'strength' }, this.strength.track,
      el('div', { class: 'strength-row' }, this.strength.number, this.unit, ...(vector?.feature ? [] : [this.layer]), this.operation, this.place, this.window),
      el('div', { class: 'strength-foot' }, this.note, el('label', { class: 'check check-on' }, on, 'on')), this.advanced.element);
    this.#drawUnits();
    this.#draw();
  }

  #set(change, live = false) {
    Object.assign(this.intervention, change);
    if (!live) this.strength.bounds(bounds(this.intervention, this.vector));
    this.#draw();
    this.moved(live);
  }

  #operate(operation) {
    const had = this.intervention.operation;
    this.#set({ operation });
    if (operation === 'ablate' && had === 'add' && this.intervention.strength > 0 && this.intervention.strength <= 1) return this.advanced.draw();
    if (operation in STARTS) this.strength.set(STARTS[operation]);
    else if (had in STARTS) this.#setUnit(...(this.vector?.feature ? startOf(this.vector) : ['relative', this.vector?.recommended_strength ?? 0]));
    else if (this.vector?.feature && this.intervention.unit === 'relative' && operation !== 'add') this.#setUnit(...(this.vector.indexed ? ['max', 1] : ['raw', 1]));
    this.#drawUnits();
    return this.advanced.draw();
  }

  /** Of a feature an activation is set, which has no relative unit; without a corpus nobody knows its maximum, nor how long the residual is. */
  #drawUnits() {
    if (!this.vector?.feature) return;
    for (const input of this.unit.querySelectorAll('input')) {
      input.disabled = (input.value === 'relative' && (this.intervention.operation !== 'add' || !this.vector.indexed)) || (input.value === 'max' && !this.vector.indexed);
    }
  }

  /** What a unit is worth was found out meanwhile. */
  learnt() {
    this.strength.bounds(bounds(this.intervention, this.vector));
    this.#draw();
  }

  /** Why this vector cannot do an operation, or ''. */
  #lacks(operation) {
    if (!this.vector || operation === this.intervention.operation) return '';
    if (operation === 'affine' && !this.vector.affine_layers?.length) return 'This vector does not say where its negative examples lie; build it again';
    return operation === 'rotate' && this.vector.layers.length < 2 ? 'Rotation needs a vector with more than one layer' : '';
  }

  /** From the advanced part, which may also change where it acts. */
  #adjust(change) {
    this.#set(change);
    if (change.positions) this.place.value = placeOf(change.positions);
    this.#drawWindow();
  }

  #setUnit(unit, strength = convert(this.intervention.strength, this.vector, this.intervention.layer, unit, this.intervention.unit)) {
    Object.assign(this.intervention, { unit, strength });
    this.strength.bounds(bounds(this.intervention, this.vector));
    this.strength.show(strength);
    for (const input of this.unit.querySelectorAll('input')) input.checked = input.value === unit;
    this.#set({});
  }

  #setPlace(place) {
    const positions = { ...FRESH[place] };
    const { condition, schedule } = this.intervention;
    const change = { positions };
    if (condition?.decided === 'prompt' && positions.prompt) change.condition = null; // it cannot steer the prompt
    if (schedule && !positions.generated) Object.assign(change, { schedule: null, condition: null });
    this.#set(change);
    this.advanced.draw();
    this.#drawWindow();
  }

  #draw() {
    this.unit.hidden = !HAS_UNIT.has(this.intervention.operation);
    this.note.replaceChildren(...notes(this.intervention, this.vector).map(({ text, ok }) => el('span', { class: ok ? 'ok' : null }, text)));
    if (!this.window.childElementCount || placeOf(this.intervention.positions) !== 'window') this.#drawWindow();
  }

  #drawWindow() {
    if (placeOf(this.intervention.positions) !== 'window') return this.window.replaceChildren();
    const bound = (name, label) => {
      const input = el('input', { class: 'form-control form-number', type: 'number', min: 0, step: 1, 'aria-label': label, value: this.intervention.positions[name] ?? '', placeholder: name === 'stop' ? 'end' : '0' });
      input.addEventListener('change', () => {
        const value = input.value === '' ? null : Math.max(0, Math.round(Number(input.value)));
        this.#set({ positions: { ...this.intervention.positions, [name]: value } });
      });
      return input;
    };
    this.window.replaceChildren('from token ', bound('start', 'First token, counted from 0'), ' to before ', bound('stop', 'First token that is left alone'));
  }

  #units(id) {
    const choice = (value, text, title) => el('label', {},
      el('input', { type: 'radio', name: `${id}-unit`, value, checked: this.intervention.unit === value, onchange: () => this.#setUnit(value) }),
      el('span', { title }, text));
    return el('fieldset', { class: 'seg seg-sm', 'aria-label': 'Unit of strength' },
      ...(this.vector?.feature ? [choice('max', 'max', '1.0 is the largest activation that was seen in the indexed corpus')] : []),
      choice('relative', '×', '1.0 is the median residual norm at this site'), choice('raw', 'raw', this.vector?.feature ? 'activations of the feature, as the autoencoder counts them' : 'multiples of the vector as it was built'));
  }

  #layers() {
    const layers = this.vector?.layers ?? [this.intervention.layer];
    return layers.map(layer => [layer, `L${layer}`, layer === this.vector?.recommended_layer ? 'recommended' : '']);
  }
}

/** The unit and strength with which a feature begins. */
const startOf = feature => (feature.indexed ? ['max', 1] : ['raw', 30]);

function select(label, options, value, changed) {
  const box = el('select', { class: 'form-select form-select-sm', 'aria-label': label },
    ...options.map(([key, text, title, lacks]) => el('option', { value: key, title: lacks || title, selected: key === value, disabled: Boolean(lacks) }, text)));
  box.addEventListener('change', () => changed(box.value));
  return box;
}
