// What few interventions need: a kept length, a schedule over the answer, a condition. Closed until asked for or set.
import { el, figure, icon } from './dom.js';

const SCHEDULES = {
  none: ['every token alike', 'each generated token is steered fully'],
  first: ['only the first', 'later tokens are left alone'],
  ramp: ['rising over', 'from little to all over so many generated tokens'],
  decay: ['halved every', 'half as much after so many generated tokens, and so on'],
};
const DECIDED = {
  none: ['always', ''],
  prompt: ['if the prompt', 'decided once, when the prompt has been read; steers generated tokens'],
  token: ['at tokens that', 'decided anew at every token'],
};
const MEASURES = { cosine: ['cosine', 'from −1 to 1, whatever the length'], projection: ['projection', 'in raw units of this layer'] };
const ALWAYS = { threshold: 0, vector: '', layer: null, comparison: 'above', measure: 'cosine', pooling: 'mean' };

/** "length kept · first 8 tokens · if the prompt’s cosine is above 0.2" */
export function advancedText({ norm_preserving, schedule, condition }) {
  const words = norm_preserving ? ['length kept'] : [];
  if (schedule) words.push(`${{ first: 'first', ramp: 'rising over', decay: 'halved every' }[schedule.kind]} ${schedule.tokens} tokens`);
  if (condition) words.push(`if the ${condition.decided}’s ${condition.measure} is ${condition.comparison} ${figure(condition.threshold, 3)}`);
  return words.join(' · ');
}

export class Advanced {
  /** `others` are the vectors that a condition may rest on; `set(change)` changes the intervention. */
  constructor(intervention, vector, others, set) {
    Object.assign(this, { intervention, vector, others, set });
    this.name = vector?.name ?? 'this vector';
    this.layer = intervention.layer ?? vector?.recommended_layer ?? 0; // of a feature: where its autoencoder reads
    this.said = el('span', { class: 'num' });
    this.rows = el('div', { class: 'more-rows' });
    const mark = icon('right');
    mark.setAttribute('class', 'icon chev');
    this.element = el('details', { class: 'more' }, el('summary', {}, mark, 'Advanced', this.said), this.rows);
    this.draw();
  }

  draw() {
    this.said.textContent = advancedText(this.intervention);
    this.rows.replaceChildren(this.#length(), this.#schedule(), ...this.#condition());
  }

  #change(change, focus) {
    this.set(change);
    this.draw();
    if (focus) this.rows.querySelector(`[aria-label="${CSS.escape(focus)}"]`)?.focus();
  }

  #length() {
    const always = this.intervention.operation === 'rotate';
    const box = el('input', { type: 'checkbox', checked: always || Boolean(this.intervention.norm_preserving), disabled: always });
    box.addEventListener('change', () => { this.set({ norm_preserving: box.checked }); this.said.textContent = advancedText(this.intervention); });
    return el('label', { class: 'check check-on' }, box, always ? 'Rotation keeps the length of the residual' : 'Keep the length of the residual');
  }

  #schedule() {
    const { schedule } = this.intervention, label = `Schedule of ${this.name}`;
    const kind = this.#select(label, SCHEDULES, schedule?.kind ?? 'none', value => this.#change({ schedule: value === 'none' ? null : { kind: value, tokens: schedule?.tokens ?? 16 } }, label));
    kind.disabled = !this.intervention.positions.generated;
    const tokens = schedule && this.#number('Tokens of the schedule', schedule.tokens, { min: 1, max: 100000, step: 1 }, value => this.#change({ schedule: { ...schedule, tokens: Math.max(1, Math.round(value)) } }, 'Tokens of the schedule'));
    return this.#row('Schedule', kind, ...(tokens ? [tokens, 'tokens'] : []));
  }

  #condition() {
    const { condition } = this.intervention, label = `Condition of ${this.name}`;
    const when = this.#select(label, DECIDED, condition?.decided ?? 'none', value => this.#decide(value, label));
    if (this.vector?.feature && !this.others.length) return [];
    if (!condition) return [this.#row('Steer', when)];
    const set = change => this.#change({ condition: { ...condition, ...change } });
    const read = this.others.find(v => v.id === condition.vector) ?? this.vector;
    const layers = (read?.layers ?? []).filter(layer => condition.decided === 'prompt' || layer <= (this.intervention.layer ?? this.layer));
    const pooling = this.#select('Of the prompt', { mean: ['mean', 'over its tokens, special ones left out'], last: ['last token', ''] }, condition.pooling, value => set({ pooling: value }));
    return [
      this.#row('Steer', when, ...(condition.decided === 'prompt' ? [pooling] : [])),
      this.#row('has', this.#select('Measure of the condition', MEASURES, condition.measure, value => set({ measure: value, threshold: value === 'cosine' ? Math.min(1, Math.max(-1, condition.threshold)) : condition.threshold })), 'with',
        this.#select('Vector of the condition', Object.fromEntries([...(this.vector?.feature ? [] : [['', ['this vector', '']]]), ...this.others.filter(v => v.id !== this.intervention.vector).map(v => [v.id, [v.name, '']])]), condition.vector ?? '', value => set({ vector: value, layer: null }))),
      this.#row('at',
        this.#select('Layer of the condition', Object.fromEntries([['', [condition.decided === 'token' ? `L${this.intervention.layer ?? this.layer}` : `L${read?.recommended_layer ?? '?'}`, 'the usual one']], ...layers.map(l => [l, [`L${l}`, '']])]), condition.layer ?? '', value => set({ layer: value === '' ? null : Number(value) })),
        this.#select('Comparison', { above: ['above', ''], below: ['below', ''] }, condition.comparison, value => set({ comparison: value })),
        this.#number('Threshold', condition.threshold, condition.measure === 'cosine' ? { min: -1, max: 1, step: 0.01 } : { step: 'any' }, value => set({ threshold: value }))),
      el('p', { class: 'strength-note' }, condition.decided === 'prompt' ? 'Decided when the prompt has been read; the prompt itself stays unsteered. The receipt says the value.' : 'Decided at every token; the receipt says how many were left alone.'),
    ];
  }

  #decide(decided, label) {
    if (decided === 'none') return this.#change({ condition: null }, label);
    const condition = { ...ALWAYS, ...this.intervention.condition, decided };
    if (this.vector?.feature) condition.vector ||= this.others[0].id;
    if (decided === 'token' && condition.layer !== null && condition.layer > (this.intervention.layer ?? this.layer)) condition.layer = null;
    const { positions } = this.intervention;
    return this.#change({ condition, ...(decided === 'prompt' && positions.prompt ? { positions: { ...positions, prompt: false, generated: true } } : {}) }, label);
  }

  #row(term, ...parts) { return el('div', { class: 'more-row' }, el('span', { class: 'more-term' }, term), ...parts); }

  #select(label, options, value, changed) {
    const box = el('select', { class: 'form-select form-select-sm', 'aria-label': label },
      ...Object.entries(options).sort((a, b) => (a[0] === '' ? -1 : b[0] === '' ? 1 : 0)).map(([key, [text, title]]) => el('option', { value: key, title, selected: key === String(value) }, text)));
    box.addEventListener('change', () => changed(box.value));
    return box;
  }

  #number(label, value, limits, changed) {
    const input = el('input', { class: 'form-control form-number', type: 'number', 'aria-label': label, value, ...limits });
    input.addEventListener('change', () => {
      if (input.value === '' || !input.validity.valid) input.value = value;
      else changed(Number(input.value));
    });
    return input;
  }
}
