// Datasets: the growing table of pairs, drafts that survive a closed tab, and the tokenizer's part of the check.
import { icon } from './base.js';

const DRAFT_MS = 600;
const ASK_AGAIN_MS = 3000;

// ---- The table of pairs ----

const row = element => element.closest('.pair');
const isBlank = pair => [...pair.querySelectorAll('textarea')].every(field => !field.value);

function renumber(table) {
  const pairs = [...table.querySelectorAll('.pair')];
  const first = Number(table.dataset.first);
  pairs.forEach((pair, i) => {
    pair.querySelector('.pair-number').textContent = first + i;
    for (const field of pair.querySelectorAll('textarea')) {
      field.setAttribute('aria-label', `${field.name === 'prompt' ? 'Prompt' : field.name === 'positive' ? 'Positive side' : 'Negative side'} of pair ${first + i}`);
    }
    pair.querySelector('[data-move="-1"]').disabled = i === 0;
    pair.querySelector('[data-move="1"]').disabled = i === pairs.length - 1;
  });
  const filled = pairs.filter(pair => !isBlank(pair)).length;
  const full = pairs.length >= Number(table.dataset.most);
  table.querySelector('[data-add]').disabled = full;
  table.querySelector('[data-count]').textContent = full
    ? `${filled} pairs: this table takes no more. Save it, or import a file.`
    : `${filled} ${filled === 1 ? 'pair' : 'pairs'}`;
}

function blankPair(table) {
  const pair = table.blank.cloneNode(true);
  table.querySelector('.pairs-rows').append(pair);
  return pair;
}

function setUpTable(table) {
  const rows = table.querySelector('.pairs-rows');
  table.dataset.first = rows.querySelector('.pair-number').textContent;
  table.blank = rows.lastElementChild.cloneNode(true);
  table.blank.classList.remove('is-bad');
  table.blank.querySelector('.field-error')?.remove();
  table.blank.querySelector('.pair-note')?.remove();
  for (const field of table.blank.querySelectorAll('textarea, input')) field.value = field.defaultValue = '';
  const removed = [];
  const undo = table.querySelector('[data-undo]');
  const changed = () => { renumber(table); table.dispatchEvent(new Event('input', { bubbles: true })); };

  table.querySelector('[data-add]').addEventListener('click', () => {
    const pair = blankPair(table);
    changed();
    pair.querySelector('textarea').focus();
  });
  undo.addEventListener('click', () => {
    const { pair, next } = removed.pop();
    rows.insertBefore(pair, next?.isConnected ? next : null);
    undo.hidden = !removed.length;
    changed();
    pair.querySelector('textarea').focus();
  });
  rows.addEventListener('click', event => {
    const button = event.target.closest('button');
    if (!button) return;
    const pair = row(button);
    if (button.dataset.move === '-1') pair.previousElementSibling?.before(pair);
    if (button.dataset.move === '1') pair.nextElementSibling?.after(pair);
    if ('remove' in button.dataset) {
      const next = pair.nextElementSibling;
      removed.push({ pair, next });
      pair.remove();
      if (!rows.children.length) blankPair(table);
      undo.hidden = false;
      (next ?? rows.lastElementChild).querySelector('[data-remove]').focus();
    } else {
      button.focus();
    }
    changed();
  });
  rows.addEventListener('input', event => {
    const last = rows.lastElementChild;
    if (row(event.target) === last && !isBlank(last) && rows.children.length < Number(table.dataset.most)) blankPair(table);
    renumber(table);
  });
  renumber(table);
}

// ---- Drafts: what was typed comes back after a crash, a reload, or a wrong click ----

const ROLES = ['was', 'prompt', 'positive', 'negative'];
const FIELDS = ['name', 'description', 'pasted'];

function typed(form) {
  const data = new FormData(form);
  const pairs = data.getAll('prompt').map((_, i) => ROLES.map(role => data.getAll(role)[i]));
  return JSON.stringify({ fields: FIELDS.map(name => data.get(name)), how: data.get('how'), pairs: pairs.filter(pair => pair.slice(1).some(Boolean)) });
}

function restore(form, table, text) {
  const draft = JSON.parse(text);
  FIELDS.forEach((name, i) => { if (form.elements[name] && draft.fields[i] !== null) form.elements[name].value = draft.fields[i]; });
  const how = draft.how && form.querySelector(`[name="how"][value="${draft.how}"]`);
  if (how) how.checked = true;
  const rows = table.querySelector('.pairs-rows');
  rows.replaceChildren();
  for (const values of [...draft.pairs, ['', '', '', '']]) {
    const pair = blankPair(table);
    ROLES.forEach((role, i) => { pair.querySelector(`[name="${role}"]`).value = values[i]; });
  }
  renumber(table);
}

function setUpDraft(form) {
  const key = `draft:${form.dataset.draft}`;
  const table = form.querySelector('[data-pairs]');
  const asServed = typed(form);
  const kept = localStorage.getItem(key);
  if (kept && kept !== asServed && !document.querySelector('.error-panel')) offerDraft(form, table, key, kept);
  let timer, sending = false;
  const keep = () => {
    clearTimeout(timer);
    const now = typed(form);
    try {
      if (now === asServed) localStorage.removeItem(key);
      else localStorage.setItem(key, now);
    } catch { /* the browser's store is full: the page itself still has everything */ }
  };
  form.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(keep, DRAFT_MS); });
  form.addEventListener('submit', () => { sending = true; keep(); sessionStorage.setItem('sent', key); });
  window.addEventListener('beforeunload', event => {
    if (!sending && typed(form) !== asServed) { keep(); event.preventDefault(); }
  });
}

function offerDraft(form, table, key, kept) {
  const notice = document.createElement('div');
  notice.className = 'notice';
  notice.setAttribute('role', 'status');
  const text = document.createElement('p');
  text.className = 'grow';
  text.textContent = 'There are changes here that you typed and did not save. ';
  const button = (label, act) => {
    const made = document.createElement('button');
    made.type = 'button';
    made.className = 'btn btn-sm';
    made.textContent = label;
    made.addEventListener('click', () => { act(); notice.remove(); });
    return made;
  };
  notice.append(icon('warn'), text, button('Bring them back', () => restore(form, table, kept)), button('Forget them', () => localStorage.removeItem(key)));
  form.before(notice);
}

/** A form that was sent and did not come back with errors has been saved: its draft may go. */
function forgetSent() {
  const key = sessionStorage.getItem('sent');
  if (!key) return;
  sessionStorage.removeItem('sent');
  if (!document.querySelector('.error-panel')) localStorage.removeItem(key);
}

// ---- The tokenizer's part of the check ----

async function checkTokens(list) {
  const item = list.querySelector('#tokens');
  try {
    const response = await fetch(list.dataset.url, { headers: { Accept: 'application/json' } });
    if (!response.ok) throw new Error(response.status);
    const { tokens } = await response.json();
    showTokens(item, tokens);
    if (tokens.state === 'waiting') setTimeout(checkTokens, ASK_AGAIN_MS, list);
  } catch {
    showTokens(item, { state: 'unavailable', title: 'Token boundaries are not checked', advice: 'The server did not answer. Reload the page to try again.', places: [], more: 0 });
  }
}

function showTokens(item, tokens) {
  const body = document.createElement('span');
  const title = document.createElement('b');
  title.textContent = `${tokens.title}.`;
  body.append(title, tokens.advice ? ` ${tokens.advice} ` : ' ');
  const places = document.createElement('span');
  places.className = 'places';
  for (const { row: number, page } of tokens.places) {
    const link = document.createElement('a');
    link.href = `?page=${page}#row-${number}`;
    link.textContent = number;
    link.setAttribute('aria-label', `Pair ${number}`);
    places.append(link, ' ');
  }
  if (tokens.more) places.append(`and ${tokens.more} more`);
  body.append(places);
  const sign = tokens.state !== 'checked' ? 'clock' : tokens.places.length ? 'warn' : 'check';
  const drawn = icon(sign);
  if (sign !== 'check') drawn.classList.add(sign === 'warn' ? 'icon-warn' : 'icon-wait');
  item.replaceChildren(drawn, body);
}

forgetSent();
document.querySelectorAll('[data-pairs]').forEach(setUpTable);
document.querySelectorAll('form[data-draft]').forEach(setUpDraft);
const findings = document.querySelector('#findings');
if (findings) checkTokens(findings);
