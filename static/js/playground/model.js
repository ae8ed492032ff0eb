// Which model the lanes run on, where several are served. With one there is nothing to see here.
import { csrfToken } from '../base.js';
import { $, el } from './dom.js';

export class ModelChoice {
  /** `chosen(model)` is called when another is taken; which vectors can be used has been worked out by then. */
  constructor(data, library, chosen) {
    if (!data.models.length) return;
    const select = $('model-choice');
    const named = id => data.models.find(model => model.id === id);
    data.settings.model ||= data.model.id;
    select.replaceChildren(...data.models.map(model => el('option', { value: model.id }, shortName(model.id))));
    if (!named(data.settings.model)) select.prepend(el('option', { value: data.settings.model }, `${shortName(data.settings.model)}, not served now`));
    select.value = data.settings.model;
    select.hidden = $('model-label').hidden = false;
    library.useOn(data.settings.model);
    select.addEventListener('change', () => {
      data.settings.model = select.value;
      library.useOn(select.value);
      if (!named(select.value)) return;
      chosen(named(select.value));
      remember(select.value);
    });
  }
}

const shortName = id => id.replace(/\/+$/, '').split('/').pop();

/** The frame and other pages speak of the model that was chosen last. */
function remember(model) {
  const body = new URLSearchParams({ model, next: '/status.json' });
  fetch('/models/choose/', { method: 'POST', body, headers: { 'X-CSRFToken': csrfToken() } }).catch(() => {});
}
