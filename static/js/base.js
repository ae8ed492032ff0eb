// The frame of every page: menus, theme, shortcuts, and the state of the model in the top bar.
import { openSheet, register } from './shortcuts.js';

const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const ICONS = new URL('../icons.svg', import.meta.url).pathname;
const POLL_MS = 5000;
const POLL_LOADING_MS = 2000;

/** An icon of the sprite as an SVG element: icon('check'). */
export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  use.setAttribute('href', `${ICONS}#i-${name}`);
  svg.append(use);
  return svg;
}

/** The value to send as X-CSRFToken with fetch. */
export function csrfToken() {
  return $('input[name=csrfmiddlewaretoken]')?.value ?? '';
}

/** A notice in the corner that goes away by itself; `detail` is its second line, `link` a { href, text } after it. */
export function toast(title, detail = '', link = null) {
  const box = document.createElement('div');
  box.className = 'toast show';
  const text = document.createElement('div');
  text.className = 'grow';
  const b = document.createElement('b');
  b.textContent = title;
  const p = document.createElement('p');
  p.textContent = detail;
  if (link) {
    const a = document.createElement('a');
    a.href = link.href;
    a.textContent = link.text;
    p.append(' ', a);
  }
  text.append(b, p);
  const close = document.createElement('button');
  close.className = 'btn btn-ghost btn-icon btn-sm';
  close.type = 'button';
  close.setAttribute('aria-label', 'Dismiss');
  close.append(icon('x'));
  close.onclick = () => box.remove();
  box.append(icon('check'), text, close);
  $('#toasts').append(box);
  setTimeout(() => box.remove(), 8000);
}

// ---- Menus ----

for (const menu of all('details.dropdown')) {
  menu.addEventListener('toggle', () => {
    if (menu.open) all('details.dropdown[open]').forEach(other => { if (other !== menu) other.open = false; });
  });
}
document.addEventListener('click', event => {
  all('details.dropdown[open]').forEach(menu => { if (!menu.contains(event.target)) menu.open = false; });
  if (!event.target.closest('.sidenav, .menu-toggle')) closeNavigation();
});
document.addEventListener('keydown', event => {
  if (event.key !== 'Escape') return;
  const open = $('details.dropdown[open]');
  if (open) {
    open.open = false;
    $('summary', open).focus();
    event.preventDefault();
  } else if (closeNavigation()) {
    $('.menu-toggle').focus();
    event.preventDefault();
  }
}, true);

function closeNavigation() {
  const was = document.body.classList.contains('nav-open');
  document.body.classList.remove('nav-open');
  $('.menu-toggle')?.setAttribute('aria-expanded', 'false');
  return was;
}
$('.menu-toggle')?.addEventListener('click', event => {
  const open = document.body.classList.toggle('nav-open');
  event.currentTarget.setAttribute('aria-expanded', open);
  if (open) $('.sidenav a')?.focus();
});

// ---- Theme ----

function drawThemeToggle() {
  const shown = window.steerboardTheme.shown();
  for (const button of all('[data-theme-toggle]')) {
    button.replaceChildren(icon(shown === 'dark' ? 'sun' : 'moon'));
    button.setAttribute('aria-label', shown === 'dark' ? 'Switch to the light theme' : 'Switch to the dark theme');
  }
  for (const radio of all('input[name=theme]')) radio.checked = radio.value === window.steerboardTheme.choice();
}
all('[data-theme-toggle]').forEach(button => button.addEventListener('click', () => {
  window.steerboardTheme.set(window.steerboardTheme.shown() === 'dark' ? 'light' : 'dark');
}));
all('input[name=theme]').forEach(radio => radio.addEventListener('change', () => window.steerboardTheme.set(radio.value)));
document.addEventListener('steerboard:theme', drawThemeToggle);
drawThemeToggle();

// ---- Shortcuts ----

register('Going', [
  ...all('[data-keys]').map(a => ({ keys: a.dataset.keys, label: a.dataset.title, run: () => a.click() })),
  { keys: '?', label: 'This sheet', run: openSheet },
]);
all('[data-shortcuts]').forEach(button => button.addEventListener('click', openSheet));

// ---- The model ----

const worker = $('#worker');

/** The last answer of /status.json: { model, name, facts, state, dot, detail }; pages listen to `steerboard:status`. */
export let served = null;

function drawStatus(status) {
  $('.dot', worker).className = `dot dot-${status.dot}`;
  $('.state b', worker).textContent = status.state;
  $('.extra', worker).textContent = status.detail ? ` · ${status.detail}` : '';
  worker.title = status.detail;
  $('[data-model-name]').textContent = status.name;
  $('[data-model-facts]').textContent = status.facts;
  for (const el of all('[data-model]')) el.textContent = status.model[el.dataset.model] || 'not known yet';
}

async function poll() {
  let wait = POLL_MS;
  try {
    const response = await fetch(worker.dataset.url, { headers: { Accept: 'application/json' } });
    if (response.status === 401) return drawStatus({ ...remembered(), dot: 'warn', state: 'Signed out', detail: 'reload the page to sign in' });
    if (!response.ok) throw new Error(String(response.status));
    served = await response.json();
    drawStatus(served);
    document.dispatchEvent(new CustomEvent('steerboard:status', { detail: served }));
    if (served.model.state === 'loading') wait = POLL_LOADING_MS;
  } catch {
    drawStatus({ ...remembered(), dot: 'down', state: 'No connection', detail: 'the page keeps trying' });
  }
  setTimeout(poll, wait);
}

function remembered() {
  return served ?? { model: {}, name: $('[data-model-name]').textContent, facts: $('[data-model-facts]').textContent };
}
if (worker) poll();
