// Saving a lane under a name that programs can call as a model.
import { csrfToken } from '../base.js';
import { el, figure, iconButton } from './dom.js';

// What a field is worth when nobody sets it. Seed and length are not kept: a program says how long, and draws its own seed.
const NEUTRAL = { temperature: 1, top_p: 1, top_k: 0, min_p: 0, repetition_penalty: 1, frequency_penalty: 0, presence_penalty: 0,
  typical_p: 1, ads_subset_size: 0, ads_beta: 0.3, adaptive_temperature: 0, beam_width: 1, length_penalty: 1 };
const LISTS = ['stop', 'temperature_schedule', 'top_p_schedule'];
const MAX_NAME = 40;

export class SavePreset {
  #names = new WeakMap(); // of lanes that were saved

  constructor(library) {
    this.library = library;
    this.name = el('input', { class: 'form-control', id: 'preset-name', maxlength: MAX_NAME, required: true, autocomplete: 'off', spellcheck: 'false', 'aria-describedby': 'preset-name-hint' });
    this.version = el('input', { class: 'form-control form-short', id: 'preset-version', maxlength: 12, required: true, autocomplete: 'off' });
    this.description = el('input', { class: 'form-control', id: 'preset-description', maxlength: 2000, autocomplete: 'off' });
    this.sampling = el('input', { type: 'checkbox', checked: true });
    this.samplingText = el('span', {});
    this.shared = el('input', { type: 'checkbox' });
    this.called = el('code', {});
    this.problem = el('p', { class: 'field-error', role: 'alert', hidden: true });
    this.button = el('button', { class: 'btn btn-primary' }, 'Save');
    this.name.addEventListener('input', () => { this.version.value = this.#nextVersion(); this.#draw(); });
    this.version.addEventListener('input', () => this.#draw());
    const form = el('form', { method: 'dialog', novalidate: true }, this.#fields(), el('div', { class: 'panel-foot cluster' }, this.button, el('button', { class: 'btn btn-ghost', type: 'button', onclick: () => this.dialog.close() }, 'Cancel')));
    form.addEventListener('submit', event => { event.preventDefault(); this.#save(); });
    this.dialog = el('dialog', { class: 'pick-dialog', 'aria-labelledby': 'preset-title' },
      el('header', {}, el('h2', { id: 'preset-title' }, 'Save as a preset'), iconButton('x', 'Close', () => this.dialog.close())), form);
    document.body.append(this.dialog);
  }

  #fields() {
    const labelled = (text, input, hint = null) => el('div', {}, el('label', { class: 'form-label', for: input.id }, text), input, hint);
    return el('div', { class: 'pick-body' },
      el('div', { class: 'name-version' },
        labelled('Name', this.name), labelled('Version', this.version)),
      el('p', { class: 'form-hint', id: 'preset-name-hint' }, 'Programs call it as ', this.called),
      labelled('What it is for', this.description),
      el('label', { class: 'check' }, this.sampling, this.samplingText),
      el('label', { class: 'check' }, this.shared, el('span', {}, 'Share it with everyone here. ', el('span', { class: 'muted' }, 'They can use it; your vectors stay yours and cannot be downloaded.'))),
      this.problem);
  }

  /** Ask how to keep `lane`; `saved` is called with what the server says of it. */
  ask(lane, settings, saved) {
    Object.assign(this, { lane, settings, saved });
    this.name.value = this.#names.get(lane) ?? slug(lane.name === 'Steered' ? this.#vectorName(lane) : lane.name);
    this.version.value = this.#nextVersion();
    this.description.value = '';
    this.kept = sampling(settings.sampling);
    this.sampling.closest('label').hidden = !Object.keys(this.kept).length;
    this.samplingText.textContent = `With this sampling as its default: ${inWords(this.kept)}`;
    this.shared.checked = false;
    this.#complain('');
    this.#draw();
    this.dialog.showModal();
    this.name.select();
  }

  #vectorName(lane) { return this.library.byId.get(lane.interventions.find(i => i.on)?.vector)?.name ?? lane.name; }

  get #mine() {
    const model = this.settings.model.toLowerCase();
    return this.library.presets.filter(p => p.mine && p.name === this.name.value.trim() && (!model || p.model_id.toLowerCase() === model));
  }

  #nextVersion() {
    const [newest] = this.#mine.map(p => p.version.split('.').map(Number)).sort((a, b) => b[0] - a[0] || b[1] - a[1]);
    return newest ? `${newest[0]}.${newest[1] + 1}` : '1.0';
  }

  #draw() {
    const model = document.querySelector('[data-model-name]')?.textContent.toLowerCase() ?? 'model';
    this.called.textContent = `${model}::${this.name.value.trim() || '…'}@${this.version.value.trim() || '…'}`;
  }

  #complain(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
  }

  async #save() {
    const content = {
      uses: this.lane.interventions.filter(i => i.on), system_prompt: this.lane.system_prompt,
      sampling: this.sampling.checked ? this.kept : {},
      behaviors: this.lane.behaviors, auto_correct: this.lane.auto_correct, force_steering: this.lane.force_steering,
    };
    const body = {
      name: this.name.value.trim(), version: this.version.value.trim(), description: this.description.value.trim(), shared: this.shared.checked,
      model: this.settings.model, content,
    };
    this.button.disabled = true;
    try {
      const response = await fetch('/presets/save/', {
        method: 'POST', body: JSON.stringify(body), headers: { 'Content-Type': 'application/json', Accept: 'application/json', 'X-CSRFToken': csrfToken() },
      });
      const answer = await response.json();
      if (!response.ok) return this.#complain(answer.error.message);
      this.dialog.close();
      this.#names.set(this.lane, body.name);
      this.saved(answer);
    } catch {
      this.#complain('The server did not answer. Try again in a moment.');
    } finally {
      this.button.disabled = false;
    }
  }
}

function slug(text) {
  return text.toLowerCase().normalize('NFKD').replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '').slice(0, MAX_NAME).replace(/-+$/, '') || 'preset';
}

function sampling(given) {
  const set = Object.keys(NEUTRAL).filter(name => name in given && given[name] !== NEUTRAL[name] && !(name === 'ads_beta' && !given.ads_subset_size));
  const lists = LISTS.filter(name => given[name]?.length);
  return Object.fromEntries([...set.map(name => [name, given[name]]), ...lists.map(name => [name, [...given[name]]])]);
}

function inWords(kept) {
  return Object.entries(kept).map(([name, value]) => `${name.replaceAll('_', ' ')} ${Array.isArray(value) ? (name === 'stop' ? `at ${value.length} strings` : `of ${value.length} tokens`) : figure(value)}`).join(', ');
}
