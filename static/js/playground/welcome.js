// The guided path: pick a direction, run it, move its strength. The same websocket and the same answers as the playground.
import { register } from '../shortcuts.js';
import { Answer } from './answer.js';
import { Banner } from './banner.js';
import { Connection } from './connection.js';
import { $, el, figure, icon, laneClass, wake } from './dom.js';
import { divergence } from './diff.js';
import { Library, loadLibrary } from './library.js';
import { Previews } from './previews.js';
import { bounds, notes } from './scale.js';
import { Strength } from './strength.js';

const MAC = /Mac|iPhone|iPad/.test(navigator.platform);
const SAMPLING = { temperature: 0, repetition_penalty: 1.15, max_tokens: 48 }; // as the starters were measured
const HINT = { A: 'The model as it is answers here.', B: 'The same model, with the direction added while it writes.' };

class Guide {
  colour = 'off';
  run_ = null;

  constructor(data, library) {
    Object.assign(this, { data, library });
    this.connection = new Connection();
    new Banner(this.connection).model(data.model);
    this.previews = new Previews(this.connection, (_, preview) => this.#showPreview(preview));
    this.settings = {
      mode: data.settings.mode, input: '', model: data.settings.model, sampling: { ...structuredClone(data.defaults), ...SAMPLING }, seed_lock: true,
      lanes: [this.#lane('A', 'Base', 'base'), this.#lane('B', 'Steered', '1')],
    };
    this.answers = new Map(this.settings.lanes.map(lane => [lane.key, new Answer(lane, this)]));
    this.#drawAnswers();
    for (const radio of document.querySelectorAll('input[name=starter]')) radio.addEventListener('change', () => this.#pick(radio.value));
    $('guide-run').addEventListener('click', () => (this.busy ? this.stop() : this.run()));
    $('guide-run').querySelector('kbd').textContent = MAC ? '⌘ ↵' : 'Ctrl ↵';
    $('guide-prompt').addEventListener('input', () => this.#complain(''));
    document.addEventListener('steerboard:status', ({ detail }) => this.#drawModel(detail));
    const first = document.querySelector('input[name=starter]:checked');
    if (first) this.#pick(first.value, true);
    else this.#hint();
  }

  #lane(key, name, colour) { return { key, name, colour, system_prompt: '', interventions: [], copy_of: '' }; }

  get busy() { return [...this.answers.values()].some(answer => answer.busy); }
  get steered() { return this.settings.lanes[1]; }

  // ---- what answers ask of the page ----

  nameOf = applied => this.library.nameOfApplied(applied);
  changed = () => {};
  drawn = () => this.#fork();
  rerun = () => this.run();
  removeChips = () => this.run();

  // ---- step 1 ----

  #pick(id, first = false) {
    if (this.busy) this.stop();
    this.previews.cancel();
    this.starter = this.data.starters.find(starter => starter.vector === id);
    this.vector = this.library.byId.get(id);
    this.run_ = null;
    const { layer, strength } = this.starter;
    this.settings.mode = this.data.settings.mode === 'completion' ? 'completion' : this.starter.mode;
    this.steered.interventions = [{ ...Library.intervention(this.vector), layer, strength }];
    $('guide-prompt').value = this.starter.prompt;
    for (const answer of this.answers.values()) answer.clear();
    this.#drawTitle();
    this.#drawStrength();
    this.#drawExample();
    this.#step(first ? 1 : 2);
  }

  #drawTitle() {
    const [chip] = this.steered.interventions;
    $('guide-name').textContent = `${this.vector.name} · L${chip.layer} · ${figure(chip.strength)}×`;
  }

  /** The recorded example, called one; without a recording, a word on what will be here. */
  #drawExample() {
    const { example, says } = this.starter;
    this.#tag(example ? 'recorded example' : '');
    $('guide-sub').textContent = [says, example ? 'Recorded when the vector was measured; nothing has run here yet.' : 'Nothing has run here yet.'].filter(Boolean).join(' ');
    if (!example) return this.#hint();
    $('guide-prompt').value = example.prompt;
    this.answers.get('A').out.replaceChildren(example.base);
    this.answers.get('B').out.replaceChildren(example.steered);
  }

  #hint() { for (const [key, answer] of this.answers) answer.hint(HINT[key]); }

  #tag(text) {
    $('guide-tag').textContent = text;
    $('guide-tag').hidden = !text;
  }

  // ---- step 2 ----

  async run() {
    if (this.busy || this.starting || !this.vector) return;
    const input = $('guide-prompt').value;
    this.#complain('');
    this.previews.cancel();
    this.starting = true;
    try {
      const accepted = await this.connection.run({ settings: structuredClone({ ...this.settings, input }) });
      this.run_ = accepted.run;
      for (const answer of this.answers.values()) answer.begin();
      this.#tag('');
      $('guide-sub').textContent = `${this.starter.says} Live, greedy${this.settings.mode === 'completion' ? '; the model goes on from this text' : ''}.`.trim();
      this.connection.follow(accepted.run, { fresh: true, event: event => this.#take(event), reset: () => this.#reset(), failed: error => this.#complain(error.message) });
      $('guide-open').hidden = false;
      $('guide-open').querySelector('a').href = accepted.url;
      $('status').textContent = 'Generating base and steered.';
      this.#step(2);
      this.#drawButton();
    } catch (refused) {
      this.#complain(refused.message);
    } finally {
      this.starting = false;
    }
  }

  stop() { if (this.run_) this.connection.stop(this.run_); }

  #take(event) {
    if (event.t !== 'run_finished') return this.answers.get(event.lane)?.take(event);
    this.#fork();
    this.#drawButton();
    $('status').textContent = 'Base and steered have ended. Move the strength to see the steered answer follow.';
    if (event.state === 'finished') this.#step(3);
  }

  #reset() { for (const answer of this.answers.values()) answer.begin(); }

  #fork() {
    const [base, steered] = this.answers.values();
    if (base.element.querySelector('.fork') && steered.element.querySelector('.fork')) return;
    const index = divergence(base.ids, steered.ids, Boolean(base.ended && steered.ended));
    if (index === null || index > base.drawnTokens || index > steered.drawnTokens || !base.drawnTokens || !steered.drawnTokens) return;
    for (const answer of this.answers.values()) answer.unmark();
    base.mark(index, this.steered, `Steered diverges here, token ${index + 1}`, () => steered.goTo(index));
    steered.mark(index, this.steered, `Diverges from base here, token ${index + 1}`, () => base.goTo(index));
  }

  // ---- step 3 ----

  #drawStrength() {
    const [chip] = this.steered.interventions;
    this.strength = new Strength({ label: `Strength of ${this.vector.name}`, value: chip.strength, ...bounds(chip, this.vector), changed: value => this.#moved(value) });
    this.note = el('p', { class: 'strength-note' });
    $('guide-strength').replaceChildren(el('div', { class: 'strength' }, this.strength.track, el('div', { class: 'strength-row' }, this.strength.number, el('span', { class: 'small muted' }, '×'), this.note)));
    this.#drawNote();
  }

  #drawNote() {
    this.note.replaceChildren(...notes(this.steered.interventions[0], this.vector).map(({ text, ok }) => el('span', { class: ok ? 'ok' : null }, text)));
  }

  #moved(value) {
    this.steered.interventions[0].strength = value;
    this.#drawTitle();
    this.#drawNote();
    const input = $('guide-prompt').value;
    if (!this.busy && input.trim()) this.previews.ask(this.steered, { ...this.settings, input }, null);
  }

  #showPreview({ text, busy, error }) {
    if (this.busy) return;
    const [chip] = this.steered.interventions;
    this.answers.get('B').showPreview(error ? 'not possible' : `${figure(chip.strength)}×, first words`, error ?? text, busy);
    if (!error) this.#step(3);
  }

  // ---- drawing ----

  #drawAnswers() {
    $('guide-answers').replaceChildren(...[...this.answers].map(([key, answer]) => {
      const lane = answer.lane;
      answer.element.prepend(el('p', { class: 'mini-head' }, el('span', { class: 'lane-key', 'aria-hidden': 'true' }, key), lane.name));
      answer.element.classList.add(laneClass(lane));
      return answer.element;
    }));
  }

  #drawButton() {
    const [name, label] = this.busy ? ['stop', 'Stop'] : ['play', this.run_ ? 'Run again' : 'Run it'];
    const mark = icon(name);
    mark.setAttribute('class', 'icon icon-fill');
    $('guide-run').querySelector('.icon').replaceWith(mark);
    $('guide-run').querySelector('span').textContent = label;
  }

  #drawModel({ model }) {
    if (model.state === 'ready') $('ready-model').textContent = `${model.id} loaded in ${model.load_seconds.toFixed(1)} s`;
  }

  #step(now) {
    for (const step of [1, 2, 3]) {
      const item = $(`step-${step}`);
      item.classList.toggle('step-now', step === now);
      item.classList.toggle('step-done', step < now);
      if (step === now) item.setAttribute('aria-current', 'step');
      else item.removeAttribute('aria-current');
    }
  }

  #complain(sentence) {
    $('guide-error').textContent = sentence;
    $('guide-error').hidden = !sentence;
  }

  registerShortcuts() {
    register('Runs', [
      { keys: 'Mod+Enter', label: 'Run base and steered', run: () => this.run() },
      { keys: 'Escape', label: 'Stop', run: () => this.stop(), when: () => this.busy },
    ]);
    register('Strength', [
      { keys: ['[', ']'], label: 'One step down or up', run: i => this.strength.nudge(i ? 1 : -1), when: () => Boolean(this.strength) },
      { keys: '0', label: 'To zero, the baseline', run: () => this.strength.set(0), when: () => Boolean(this.strength) },
    ]);
  }
}

try {
  const library = await loadLibrary();
  wake();
  new Guide(JSON.parse($('page').textContent), library).registerShortcuts();
} catch (error) {
  $('banner').querySelector('p').textContent = error.message;
  $('banner').hidden = false;
  throw error;
}
