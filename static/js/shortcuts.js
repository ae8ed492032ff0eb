// One table of shortcuts: what the keys do and what the sheet under `?` says are the same rows.
//
//   register('Runs', [{ keys: 'Mod+Enter', label: 'Run all lanes', run: () => {...} }])
//
// `keys` is one combination ("Mod+Enter", "Alt+ArrowLeft", "Shift+[", "d"), a sequence ("g v"), or an array of them, of
// which `run` gets the index. `when` may say that the row does not apply just now. Mod is ⌘ on a Mac and Ctrl elsewhere.

const rows = [];
const MAC = /Mac|iPhone|iPad/.test(navigator.platform);
const NAMES = { Mod: MAC ? '⌘' : 'Ctrl', Shift: '⇧', Alt: MAC ? '⌥' : 'Alt', Enter: '↵', Escape: 'Esc', ArrowLeft: '←', ArrowRight: '→', ArrowUp: '↑', ArrowDown: '↓', ' ': 'Space' };
const SHIFTED = { '{': '[', '}': ']' };
const SEQUENCE_MS = 1200;

export function register(section, shortcuts) {
  for (const s of shortcuts) rows.push({ section, when: () => true, ...s, keys: [s.keys].flat() });
}

const typing = el => el instanceof Element && el.closest('input:not([type=range], [type=checkbox], [type=radio]), textarea, select, [contenteditable=true]');

function name(event) {
  const key = event.shiftKey && SHIFTED[event.key] ? SHIFTED[event.key] : event.key.length === 1 && event.key !== '?' ? event.key.toLowerCase() : event.key;
  const shift = event.shiftKey && event.key !== '?';
  return [(MAC ? event.metaKey : event.ctrlKey) && 'Mod', shift && 'Shift', event.altKey && 'Alt', key].filter(Boolean).join('+');
}

let pending = '';
let pendingSince = 0;

function handle(event) {
  if (event.defaultPrevented || event.isComposing || ['Shift', 'Control', 'Alt', 'Meta'].includes(event.key)) return;
  const combination = name(event);
  const free = /^(Mod|Escape)/.test(combination) || combination.includes('+Mod');
  if (!free && typing(event.target)) return;
  if (document.querySelector('dialog[open]')) return;
  const sequence = Date.now() - pendingSince < SEQUENCE_MS ? `${pending} ${combination}` : '';
  pending = '';
  for (const wanted of [sequence, combination]) {
    for (const row of rows) {
      const index = wanted ? row.keys.indexOf(wanted) : -1;
      if (index >= 0 && row.when()) {
        event.preventDefault();
        row.run(index, event);
        return;
      }
    }
  }
  if (rows.some(row => row.keys.some(k => k.startsWith(`${combination} `)))) {
    pending = combination;
    pendingSince = Date.now();
  }
}

function element(tag, className, ...children) {
  const el = document.createElement(tag);
  if (className) el.className = className;
  el.append(...children);
  return el;
}

function combo(keys) {
  const caps = keys.split(' ').flatMap(part => part.split('+')).map(k => element('kbd', '', NAMES[k] ?? k));
  return element('span', 'combo', ...caps);
}

function draw(dialog) {
  const sections = Map.groupBy ? Map.groupBy(rows, row => row.section) : rows.reduce((map, row) => map.set(row.section, [...(map.get(row.section) ?? []), row]), new Map());
  dialog.querySelector('.keys').replaceChildren(...[...sections].map(([title, shortcuts]) =>
    element('section', '', element('h3', '', title), element('ul', '', ...shortcuts.map(row =>
      element('li', '', element('span', '', row.label), element('span', 'k', ...row.keys.map(combo))))))));
}

export function openSheet() {
  const dialog = document.getElementById('shortcuts');
  if (!dialog || dialog.open) return;
  draw(dialog);
  dialog.showModal();
}

document.addEventListener('keydown', handle);
