// The forms that begin something: what it would take as it stands.
import { csrfToken } from '../base.js';
import { duration } from '../jobs.js';

const WAIT_MS = 400;
const form = document.querySelector('[data-estimate]');

if (form) {
  // A field is called dataset, and hides the form's own property of that name.
  const says = form.querySelector('[data-estimate-text]');
  let timer = 0;
  let asked = 0;

  async function estimate() {
    const mine = ++asked;
    try {
      const response = await fetch(form.getAttribute('data-estimate'), { method: 'POST', body: new FormData(form), headers: { 'X-CSRFToken': csrfToken() } });
      const found = await response.json();
      if (mine !== asked) return;
      says.textContent = found.problems.length ? found.problems.join(' ') : sentence(found);
    } catch {
      if (mine === asked) says.textContent = '';
    }
  }

  form.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(estimate, WAIT_MS);
  });
  if (form.querySelector('[name="policies"]:checked, select[name="policies"]')) estimate();
}

function sentence({ completions, tokens, seconds, trials }) {
  const what = trials ? `${trials} trials, ` : '';
  const many = completions === 1 ? '1 completion' : `${completions.toLocaleString('en')} completions`;
  return `${what}${many}, about ${duration(seconds)} without retries, at most ${tokens.toLocaleString('en')} tokens. It goes on if you close the page.`;
}
