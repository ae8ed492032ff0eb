// The sampling drawer and its summary in the composer. What it edits is the settings object itself.
import { $, el, figure } from './dom.js';
import { Ways } from './ways.js';

const all = selector => [...$('sampling').querySelectorAll(selector)];
const TOO_MANY = 8;

export class Sampling {
  constructor(settings, data, changed) {
    Object.assign(this, { settings, defaults: data.defaults, changed });
    this.ways = new Ways(settings, data, () => this.#done());
    $('open-sampling').addEventListener('click', () => this.toggle());
    $('close-sampling').addEventListener('click', () => this.toggle(false));
    $('reset-sampling').addEventListener('click', () => this.#reset());
    $('seed-lock').addEventListener('click', () => this.#lock(!this.settings.seed_lock));
    $('s-seed-lock').addEventListener('change', event => this.#lock(event.target.checked));
    $('s-seed').addEventListener('change', () => this.#seed());
    $('s-stop').addEventListener('change', () => this.#stops());
    $('sampling').addEventListener('keydown', event => { if (event.key === 'Escape') { event.stopPropagation(); this.toggle(false); } });
    for (const input of all('[data-key]')) input.addEventListener('change', () => this.#number(input));
    for (const input of all('[data-list]')) input.addEventListener('change', () => this.#numbers(input));
    for (const range of all('[data-for]')) range.addEventListener('input', () => { $(range.dataset.for).value = range.value; this.#number($(range.dataset.for)); });
    this.draw();
  }

  toggle(open = !$('sampling').classList.contains('show')) {
    $('sampling').classList.toggle('show', open);
    $('open-sampling').setAttribute('aria-expanded', open);
    (open ? $('s-seed') : $('open-sampling')).focus();
  }

  draw() {
    const { sampling, seed_lock: locked } = this.settings;
    for (const input of all('[data-key]')) input.value = sampling[input.dataset.key];
    for (const input of all('[data-list]')) input.value = (sampling[input.dataset.list] ?? []).join(', ');
    this.ways.draw();
    for (const range of all('[data-for]')) range.value = $(range.dataset.for).value;
    $('s-seed').value = sampling.seed ?? '';
    $('s-seed-lock').checked = locked;
    $('s-stop').value = sampling.stop.join('\n');
    $('seed-lock').setAttribute('aria-pressed', locked);
    $('sampling-text').textContent = `${this.ways.inShort(`temp ${figure(sampling.temperature)} · top-p ${figure(sampling.top_p)}`)} · max ${sampling.max_tokens}`;
    const seed = sampling.seed === null ? 'New seed each run' : `Seed ${sampling.seed}`;
    $('seed-text').replaceChildren(seed, locked ? ' in all lanes' : ', another in each lane');
  }

  #number(input) {
    const value = Number(input.value);
    const bad = input.value === '' || !input.validity.valid || !Number.isFinite(value);
    this.#complain(input, bad ? `${input.min || 0} to ${input.max || 'any'}` : '');
    if (bad) return;
    this.settings.sampling[input.dataset.key] = value;
    this.#done();
  }

  /** Numbers with commas between them. */
  #numbers(input) {
    const values = input.value.split(/[,;\s]+/).filter(Boolean).map(Number);
    const bad = values.some(value => !Number.isFinite(value) || value <= 0);
    this.#complain(input, bad ? 'above 0, with commas between several' : '');
    if (bad) return;
    this.settings.sampling[input.dataset.list] = values;
    this.#done();
  }

  /** Say what the server refused where it was asked for; whether it was something of this drawer. */
  refused(code, message) {
    if (!this.ways.refused(code, message)) return false;
    this.toggle(true);
    $('s-constraint-text').focus();
    return true;
  }

  #complain(input, range) {
    const hint = input.parentElement.querySelector('.field-error');
    input.setAttribute('aria-invalid', range ? 'true' : 'false');
    if (!range) hint?.remove();
    else if (!hint) input.parentElement.append(el('p', { class: 'field-error small', role: 'alert' }, `Give a number, ${range}.`));
  }

  #seed() {
    const text = $('s-seed').value.trim();
    const value = text === '' ? null : Math.round(Number(text));
    if (value !== null && (!Number.isFinite(value) || value < 0)) return this.draw();
    this.settings.sampling.seed = value;
    this.#done();
  }

  #stops() {
    this.settings.sampling.stop = $('s-stop').value.split('\n').filter(line => line !== '').slice(0, TOO_MANY);
    this.#done();
  }

  #lock(locked) {
    this.settings.seed_lock = locked;
    this.#done();
  }

  #reset() {
    Object.assign(this.settings.sampling, structuredClone(this.defaults));
    this.settings.seed_lock = true;
    this.ways.reset();
    this.#done();
  }

  #done() {
    this.draw();
    this.changed();
  }
}
