// The administrator's table of workers: fetched again and again, and a question before anything is done.
const POLL_MS = 2000;
const POLL_HIDDEN_MS = 10000;

const table = document.getElementById('workers');
const dialog = document.getElementById('confirm');
let asked = null;

/** While someone chooses a model or answers the question, the table stays as it is. */
const inUse = () => dialog.open || document.activeElement?.matches('#workers select');
const place = form => form?.getAttribute('action');

async function poll() {
  try {
    if (!inUse()) await refresh();
  } catch {
    document.getElementById('workers-voice').textContent = 'The server does not answer; trying again.';
  }
  setTimeout(poll, document.hidden ? POLL_HIDDEN_MS : POLL_MS);
}

async function refresh() {
  const response = await fetch(table.dataset.url, { headers: { Accept: 'text/html' } });
  if (!response.ok || response.redirected) throw new Error(String(response.status));
  const fresh = new DOMParser().parseFromString(await response.text(), 'text/html'); // our own template, escaped
  const chosen = new Map([...table.querySelectorAll('select')].map(select => [place(select.form), select.value]));
  if (inUse()) return;
  const focused = table.contains(document.activeElement) ? place(document.activeElement.form) : null;
  table.replaceChildren(...fresh.body.childNodes);
  for (const select of table.querySelectorAll('select')) select.value = chosen.get(place(select.form)) ?? select.value;
  if (focused) [...table.querySelectorAll('form')].find(form => place(form) === focused)?.querySelector('button').focus();
}

table.addEventListener('submit', event => {
  event.preventDefault();
  asked = event.target;
  const button = event.submitter?.textContent ?? 'Do it';
  const model = asked.querySelector('select')?.selectedOptions[0].textContent;
  dialog.querySelector('h2').textContent = asked.dataset.title;
  dialog.querySelector('p').textContent = asked.dataset.text;
  dialog.querySelector('[data-yes]').textContent = model ? `${button} to ${model}`.replace('Load to', 'Load') : button;
  dialog.showModal();
});
dialog.querySelector('[data-yes]').addEventListener('click', () => asked.submit());
dialog.querySelector('[data-no]').addEventListener('click', () => dialog.close());
setTimeout(poll, POLL_MS);
