// The lists from which a lane gets a vector or a preset: dialogs with a search field.
import { el, icon, iconButton } from './dom.js';
import { recommendation } from './scale.js';

export class Picker {
  /** `title` heads the dialog, `things` names what is searched, `foot` stands below the list. */
  constructor(id, title, things, foot) {
    this.things = things;
    this.search = el('input', { class: 'form-control', type: 'search', placeholder: `Search ${things}`, 'aria-label': `Search ${things}`, oninput: () => this.#draw() });
    this.rows = el('div', { class: 'pick-list' });
    this.dialog = el('dialog', { class: 'pick-dialog', 'aria-labelledby': id },
      el('header', {}, el('h2', { id }, title), iconButton('x', 'Close', () => this.dialog.close())),
      el('div', { class: 'pick-body' }, this.search, this.rows),
      el('div', { class: 'panel-foot' }, ...foot));
    this.search.addEventListener('keydown', event => {
      if (event.key === 'ArrowDown') { event.preventDefault(); this.rows.querySelector('button')?.focus(); }
    });
    this.rows.addEventListener('keydown', event => this.#walk(event));
    document.body.append(this.dialog);
  }

  /** `chosen` is called with what is taken. */
  ask(chosen) {
    this.chosen = chosen;
    this.search.value = '';
    this.#draw();
    this.dialog.showModal();
    this.search.focus();
  }

  #draw() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.all.filter(one => words.every(word => this.text(one).toLowerCase().includes(word)));
    this.rows.replaceChildren(...(found.length ? found.map(one => this.#row(one)) : [this.#nothing()]));
  }

  #row(one) {
    return el('button', { type: 'button', disabled: !one.usable, onclick: () => this.#take(one) },
      icon(this.icon), el('span', { class: 'pick-name' }, el('b', {}, one.name), el('small', {}, one.usable ? this.about(one) : 'For another model: it would mean nothing in this one.')),
      el('span', { class: 'num faint' }, one.usable ? this.facts(one) : `made on ${one.model_id}`));
  }

  #nothing() {
    return el('p', { class: 'muted small' }, this.all.length ? `Nothing matches “${this.search.value}”.` : this.none);
  }

  #take(one) {
    this.dialog.close();
    this.taken(one);
  }

  taken(one) { this.chosen(one); }

  #walk(event) {
    const rows = [...this.rows.querySelectorAll('button:enabled')];
    const to = rows.indexOf(document.activeElement) + { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (Number.isNaN(to)) return;
    event.preventDefault();
    (to < 0 ? this.search : rows[Math.min(to, rows.length - 1)])?.focus();
  }
}

export class VectorPicker extends Picker {
  icon = 'vector';
  none = 'There are no vectors yet. Build one from pairs of texts that differ in one thing.';

  constructor(vectors) {
    super('pick-vector', 'Add a vector', 'vectors', [el('a', { href: '/vectors/build/' }, 'Build a new vector'), ' from pairs of texts, or ', el('a', { href: '/vectors/' }, 'look at your library'), '.']);
    this.all = vectors;
  }

  text = vector => `${vector.name} ${vector.tagline}`;
  about = vector => vector.tagline;
  facts = vector => `L${vector.recommended_layer} · ${recommendation(vector)}`;
}

export class PresetPicker extends Picker {
  icon = 'save';
  none = 'There are no presets yet. Save a lane as one: “Save as a preset” in its menu.';

  constructor(library) {
    const sampling = el('input', { type: 'checkbox', checked: true });
    super('pick-preset', 'Load a preset', 'presets', [el('label', { class: 'check' }, sampling, 'Take its sampling too. It applies to all lanes.')]);
    Object.assign(this, { library, sampling });
  }

  get all() { return this.library.presets; }
  text = preset => `${preset.name} ${preset.version} ${preset.description} ${preset.by}`;
  about = preset => [preset.by && `by ${preset.by}`, preset.description].filter(Boolean).join(' · ');
  facts = preset => `v${preset.version}`;
  taken(preset) { this.chosen(preset, this.sampling.checked); }
}
