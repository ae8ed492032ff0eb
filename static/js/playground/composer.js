// The box at the foot of the page: what is sent to every lane, and the one button that runs or stops.
import { $, icon, list } from './dom.js';

const MAX_HEIGHT_PX = 200;
const MAC = /Mac|iPhone|iPad/.test(navigator.platform);

export class Composer {
  /** `page` offers run() and stop(). */
  constructor(page) {
    this.box = $('prompt');
    this.button = $('run');
    this.box.addEventListener('input', () => { this.#grow(); this.complain(''); page.drafted(); });
    this.box.addEventListener('keydown', event => {
      if (event.key !== 'Enter' || event.shiftKey || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
      event.preventDefault();
      page.run();
    });
    this.button.addEventListener('click', () => (this.busy ? page.stop() : page.run()));
  }

  get text() { return this.box.value; }
  set text(value) { this.box.value = value; this.#grow(); }

  draw({ busy, lanes, mode, follows, again }) {
    this.busy = busy;
    const names = `${lanes.length > 1 ? 'lanes' : 'lane'} ${list(lanes.map(lane => lane.key))}`;
    this.box.placeholder = mode === 'completion' ? `Text that ${names} will continue` : follows ? `Next message, sent to ${names}` : `Message to ${names}`;
    const [name, label, key] = busy ? ['stop', 'Stop', 'Esc'] : ['play', again ? 'Run again' : 'Run', MAC ? '⌘ ↵' : 'Ctrl ↵'];
    if (this.drawn === label) return;
    this.drawn = label;
    const mark = icon(name);
    mark.setAttribute('class', 'icon icon-fill');
    this.button.querySelector('.icon').replaceWith(mark);
    this.button.querySelector('span').textContent = label;
    this.button.querySelector('kbd').textContent = key;
  }

  complain(sentence) {
    $('composer-error').textContent = sentence;
    $('composer-error').hidden = !sentence;
  }

  focus() { this.box.focus(); }

  #grow() {
    this.box.rows = 1;
    while (this.box.scrollHeight > this.box.clientHeight + 1 && this.box.rows < 9 && this.box.clientHeight < MAX_HEIGHT_PX) this.box.rows++;
  }
}
