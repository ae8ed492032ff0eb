// Rating by keyboard, and a look at how far the answers are.
import { register } from './shortcuts.js';

const form = document.querySelector('[data-rate]');
let sent = false;

function press(act) {
  const wanted = form?.querySelector(`button[name=act][value=${act}]:not(:disabled)`);
  if (!wanted || sent) return;
  sent = true; // a key held down answers one pair
  wanted.click();
}

if (form) {
  register('Rating', [
    { keys: '1', label: 'Left is better', run: () => press('left') },
    { keys: '2', label: 'Right is better', run: () => press('right') },
    { keys: ['0', ' '], label: 'Tie', run: () => press('tie') },
    { keys: 'u', label: 'Undo the last answer', run: () => press('undo') },
    { keys: 'Enter', label: 'Reveal, when all are rated', when: () => form.querySelector('[value=reveal]') && !document.activeElement?.closest('a, button'), run: () => press('reveal') },
  ]);
  window.addEventListener('pageshow', () => { sent = false; });
}

const writing = document.querySelector('[data-writing]');
async function look() {
  try {
    const response = await fetch(writing.dataset.writing, { headers: { Accept: 'application/json' } });
    if (!response.ok || response.redirected) throw new Error(String(response.status));
    const { state, done, total } = await response.json();
    if (state !== 'writing') return location.reload();
    writing.querySelector('progress').value = done;
    writing.querySelector('[data-written]').textContent = `${done} of ${total} pairs`;
  } catch {
    writing.querySelector('[data-written]').textContent = 'no connection, trying again';
  }
  setTimeout(look, 1000);
}
if (writing) look();
