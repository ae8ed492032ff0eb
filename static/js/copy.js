// Buttons that copy: data-copy holds the text itself, data-copy-from the id of an element whose text is copied.
import { toast } from './base.js';

function textOf(button) {
  return button.dataset.copy ?? document.getElementById(button.dataset.copyFrom).textContent;
}

/** Copy without the clipboard API, which browsers offer on localhost and https only. */
function copyBySelection(text) {
  const area = document.createElement('textarea');
  area.className = 'visually-hidden';
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  return done;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

for (const button of document.querySelectorAll('[data-copy], [data-copy-from]')) {
  button.addEventListener('click', async () => {
    const done = await copy(textOf(button));
    button.focus();
    if (done) toast('Copied', (button.getAttribute('aria-label') ?? '').replace(/^Copy /, ''));
    else toast('Not copied', 'The browser did not allow it. Select the text and copy it by hand.');
  });
}
