// The form of a new experiment: what it would take as it stands, and a vector's own defaults.
import { csrfToken } from '../base.js';
import { duration } from '../jobs.js';

const WAIT_MS = 400;
const form = document.querySelector('[data-estimate]');

if (form) {
  const says = form.querySelector('[data-estimate-text]');
  const warnings = form.querySelector('[data-estimate-warnings]');
  let timer = 0;
  let asked = 0;

  async function estimate() {
    const mine = ++asked;
    try {
      const response = await fetch(form.dataset.estimate, { method: 'POST', body: new FormData(form), headers: { 'X-CSRFToken': csrfToken() } });
      const found = await response.json();
      if (mine !== asked) return;
      says.textContent = found.problems.length
        ? found.problems.join(' ')
        : `${found.points.toLocaleString('en')} points to measure, about ${duration(found.seconds)}, at most ${found.tokens.toLocaleString('en')} tokens. Nothing is lost if you close the page.`;
      warnings.replaceChildren(...found.warnings.map(text => Object.assign(document.createElement('li'), { textContent: text })));
      warnings.hidden = !found.warnings.length;
    } catch {
      if (mine === asked) says.textContent = '';
    }
  }

  form.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(estimate, WAIT_MS);
  });
  form.querySelector('[data-use-defaults]').addEventListener('click', () => {
    const chosen = form.querySelector('#id_vectors').selectedOptions[0];
    if (chosen) location.assign(`?vector=${chosen.value}`);
  });
  estimate();
}
