// The list from which a lane gets a vector: a dialog with a search field.
import { el, figure, icon, iconButton } from './dom.js';

export class VectorPicker {
  constructor(vectors) {
    this.vectors = vectors;
    this.search = el('input', { class: 'form-control', type: 'search', placeholder: 'Search vectors', 'aria-label': 'Search vectors', oninput: () => this.#draw() });
    this.rows = el('div', { class: 'pick-list' });
    this.dialog = el('dialog', { class: 'pick-dialog', 'aria-labelledby': 'pick-title' },
      el('header', {}, el('h2', { id: 'pick-title' }, 'Add a vector'), iconButton('x', 'Close', () => this.dialog.close())),
      el('div', { class: 'pick-body' }, this.search, this.rows),
      el('p', { class: 'panel-foot' }, el('a', { href: '/vectors/build/' }, 'Build a new vector'), ' from pairs of texts, or ', el('a', { href: '/vectors/' }, 'look at your library'), '.'));
    this.search.addEventListener('keydown', event => {
      if (event.key === 'ArrowDown') { event.preventDefault(); this.rows.querySelector('button')?.focus(); }
    });
    this.rows.addEventListener('keydown', event => this.#walk(event));
    document.body.append(this.dialog);
  }

  /** Ask for a vector; `chosen(vector)` is called when one is taken. */
  ask(chosen) {
    this.chosen = chosen;
    this.search.value = '';
    this.#draw();
    this.dialog.showModal();
    this.search.focus();
  }

  #draw() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.vectors.filter(v => words.every(word => `${v.name} ${v.tagline}`.toLowerCase().includes(word)));
    this.rows.replaceChildren(...(found.length ? found.map(v => this.#row(v)) : [this.#nothing()]));
  }

  #row(vector) {
    const facts = vector.usable ? `L${vector.recommended_layer} · ${figure(vector.recommended_strength)}×` : `made on ${vector.model_id}`;
    return el('button', { type: 'button', disabled: !vector.usable, onclick: () => this.#take(vector) },
      icon('vector'), el('span', { class: 'pick-name' }, el('b', {}, vector.name), el('small', {}, vector.usable ? vector.tagline : 'For another model: it would mean nothing in this one.')),
      el('span', { class: 'num faint' }, facts));
  }

  #nothing() {
    const text = this.vectors.length ? `No vector matches “${this.search.value}”.` : 'There are no vectors yet. Build one from pairs of texts that differ in one thing.';
    return el('p', { class: 'muted small' }, text);
  }

  #take(vector) {
    this.dialog.close();
    this.chosen(vector);
  }

  #walk(event) {
    const rows = [...this.rows.querySelectorAll('button:enabled')];
    const to = rows.indexOf(document.activeElement) + { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (Number.isNaN(to)) return;
    event.preventDefault();
    (to < 0 ? this.search : rows[Math.min(to, rows.length - 1)])?.focus();
  }
}
