// Features in the playground: which to steer or to watch, by label or by number, and the list of those that are watched.
import { $, el, icon, iconButton } from './dom.js';
import { toast } from '../base.js';

export const nameOfRef = ref => `${ref.source}/${ref.index}`;

/** Asks for one feature: a search among labels, and a form for a number. */
export class FeaturePicker {
  constructor(library) {
    this.library = library;
    this.search = el('input', { class: 'form-control', type: 'search', placeholder: 'Search labels', 'aria-label': 'Search labels of features', oninput: () => this.#draw() });
    this.rows = el('div', { class: 'pick-list' });
    this.source = el('select', { class: 'form-select', 'aria-label': 'Autoencoder' });
    this.index = el('input', { class: 'form-control form-number', inputmode: 'numeric', 'aria-label': 'Number of the feature', placeholder: '0' });
    this.problem = el('p', { class: 'field-error', role: 'alert', hidden: true });
    this.title = el('h2', { id: 'pick-feature' });
    const form = el('form', { class: 'cluster' }, this.source, this.index, el('button', { class: 'btn' }, 'Take this number'));
    form.addEventListener('submit', event => { event.preventDefault(); this.#number(); });
    this.byNumber = form;
    this.dialog = el('dialog', { class: 'pick-dialog', 'aria-labelledby': 'pick-feature' },
      el('header', {}, this.title, iconButton('x', 'Close', () => this.dialog.close())),
      el('div', { class: 'pick-body' }, this.search, this.rows, form, this.problem),
      el('div', { class: 'panel-foot' }, el('a', { href: '/features/search/?by=text' }, 'Find features by a text'), ' or ', el('a', { href: '/features/search/?by=example' }, 'by examples'), '.'));
    document.body.append(this.dialog);
  }

  ask(title, chosen) {
    this.title.textContent = title;
    this.chosen = chosen;
    this.search.value = this.index.value = '';
    this.#complain('');
    this.source.replaceChildren(...this.library.sources.map(s => el('option', { value: s.id }, `${s.id} · L${s.layer}`)));
    this.search.hidden = !this.library.labelled.length;
    this.byNumber.hidden = !this.library.sources.length;
    this.#draw();
    this.dialog.showModal();
    (this.search.hidden ? this.index : this.search).focus();
  }

  #draw() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.library.labelled.filter(f => words.every(word => f.text.toLowerCase().includes(word))).slice(0, 100);
    this.rows.replaceChildren(...(found.length ? found.map(f => this.#row(f)) : [this.#nothing(words)]));
  }

  #row(f) {
    return el('button', { type: 'button', onclick: () => this.#take({ source: f.source, index: f.index }) },
      icon('feature'), el('span', { class: 'pick-name' }, el('b', {}, f.text), el('small', {}, f.proposed ? 'proposed by the model' : f.by ? `by ${f.by}` : 'your label')),
      el('span', { class: 'num faint' }, nameOfRef(f)));
  }

  #nothing(words) {
    if (!this.library.sources.length) return el('p', { class: 'muted small' }, 'This model has no autoencoder. ', el('a', { href: '/features/' }, 'See how to get one.'));
    return el('p', { class: 'muted small' }, words.length ? `No label matches “${this.search.value}”.` : 'No feature has a label yet. Take one by its number.');
  }

  #number() {
    const text = this.index.value.trim().replace(/^#/, ''), source = this.library.sources.find(s => s.id === this.source.value);
    if (!/^\d{1,9}$/.test(text) || Number(text) >= source.width) return this.#complain(`${source.id} has features 0 to ${source.width - 1}. Type one of these numbers.`);
    return this.#take({ source: source.id, index: Number(text) });
  }

  #complain(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
  }

  #take(ref) {
    this.dialog.close();
    this.chosen(ref);
  }
}

/** The button and the dialog of watched features; `page` offers settings, library, data.limits, features, watchesChanged(). */
export class Watched {
  constructor(page) {
    this.page = page;
    this.rows = el('ul', { class: 'plain-list' });
    this.dialog = el('dialog', { class: 'pick-dialog', 'aria-labelledby': 'watched-title' },
      el('header', {}, el('h2', { id: 'watched-title' }, 'Watch features'), iconButton('x', 'Close', () => this.dialog.close())),
      el('div', { class: 'pick-body' }, el('p', { class: 'muted small' }, 'Every lane reads these at each token and does nothing with them. They count from the next run on.'), this.rows),
      el('div', { class: 'panel-foot cluster' }, el('button', { class: 'btn btn-primary', type: 'button', onclick: () => this.#add() }, icon('plus'), 'Watch a feature')));
    document.body.append(this.dialog);
    $('watch').addEventListener('click', () => { this.draw(); this.dialog.showModal(); });
    this.draw();
  }

  get list() { return this.page.settings.watched; }

  #add() {
    if (this.list.length >= this.page.data.limits.watched) return toast('The list is full', `A run watches at most ${this.page.data.limits.watched} features.`);
    this.dialog.close();
    return this.page.features.ask('Watch a feature', ref => {
      if (!this.list.some(one => nameOfRef(one) === nameOfRef(ref))) this.list.push(ref);
      this.#changed();
      this.dialog.showModal();
    });
  }

  #changed() {
    this.draw();
    this.page.watchesChanged();
  }

  draw() {
    const { library } = this.page;
    $('watch-count').textContent = this.list.length ? String(this.list.length) : '';
    this.rows.replaceChildren(...(this.list.length ? this.list.map((ref, i) => el('li', { class: 'near' },
      el('a', { href: `/features/${encodeURIComponent(ref.source)}/${ref.index}/` }, library.featureOf(ref).name), el('span', { class: 'num faint' }, nameOfRef(ref)),
      iconButton('x', `Stop watching ${library.featureOf(ref).name}`, () => { this.list.splice(i, 1); this.#changed(); }))) : [el('li', { class: 'muted' }, 'Nothing is watched.')]));
  }
}
