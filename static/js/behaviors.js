// A behavior's pages: the threshold that shows its rates, and a text read token by token.
import { csrfToken } from './base.js';
import './copy.js';

const POLL_MS = 400;
const STEPS = 4; // of tint on each side of the threshold

// ---- the threshold ----

const percent = share => {
  const value = 100 * share;
  return value >= 10 || value === 0 ? `${value.toFixed(0)} %` : `${value.toFixed(1)} %`;
};
const spread = ([, low, high]) => `${(100 * low).toFixed(0)} to ${(100 * high).toFixed(0)} %`;

function setUpThreshold(panel) {
  const { threshold, points } = JSON.parse(document.getElementById(panel.dataset.threshold).textContent);
  const find = name => panel.querySelector(`[data-${name}]`);
  const slider = find('threshold-slider'), input = find('threshold-input'), save = find('threshold-save');
  const reset = find('threshold-reset'), mark = find('roc-mark');
  const base = save?.getAttribute('href');

  /** What fires above a threshold is what fires above the next lower score there was. */
  const placeOf = value => {
    const at = points.findIndex(point => point.threshold <= value);
    return at < 0 ? points.length - 1 : at;
  };

  const show = (value, point) => {
    for (const name of ['recall', 'fpr', 'precision']) {
      const rate = point?.[name] ?? null;
      panel.querySelector(`[data-rate="${name}"]`).textContent = rate ? percent(rate[0]) : name === 'precision' ? 'never fires' : '0 %';
      panel.querySelector(`[data-spread="${name}"]`).textContent = rate ? spread(rate) : '';
    }
    find('threshold-value').textContent = value.toFixed(3);
    const state = find('threshold-state');
    if (state) state.textContent = value === threshold ? 'as it is' : 'not saved';
    if (mark && point) {
      mark.setAttribute('cx', point.x);
      mark.setAttribute('cy', point.y);
    }
    if (save) {
      save.hidden = reset.hidden = value === threshold;
      save.href = `${base}?threshold=${value}`;
    }
    slider.setAttribute('aria-valuetext', `fires above ${value.toFixed(3)}`);
  };
  const choose = value => {
    const at = placeOf(value);
    slider.value = at;
    show(value, points[at]);
  };

  slider.addEventListener('input', () => {
    const point = points[Number(slider.value)];
    if (input) input.value = point.threshold;
    show(point.threshold, point);
  });
  input?.addEventListener('input', () => {
    const value = Number(input.value);
    if (input.value.trim() && Number.isFinite(value)) choose(value);
  });
  reset?.addEventListener('click', () => { choose(threshold); slider.focus(); });
  choose(input && Number.isFinite(Number(input.value)) && input.value ? Number(input.value) : threshold);
}

// ---- reading a text ----

class Reader {
  constructor(form) {
    this.form = form;
    this.state = form.querySelector('[data-read-state]');
    this.error = form.querySelector('[data-read-error]');
    this.result = form.querySelector('[data-read-result]');
    this.tokens = form.querySelector('.read-tokens');
    this.about = form.querySelector('[data-read-token]');
    this.asked = 0;
    form.addEventListener('submit', event => { event.preventDefault(); this.read(); });
    this.tokens.addEventListener('pointerover', event => this.tell(event.target));
    this.tokens.addEventListener('keydown', event => this.walk(event));
  }

  async read() {
    const turn = ++this.asked;
    this.error.hidden = true;
    this.say('Reading…');
    try {
      const begun = await this.ask(this.form.dataset.read, {
        method: 'POST', body: new URLSearchParams(new FormData(this.form)), headers: { 'X-CSRFToken': csrfToken() },
      });
      for (;;) {
        if (turn !== this.asked) return;
        const job = await this.ask(begun.url);
        if (job.read) return this.draw(job.read);
        if (job.state === 'failed') throw new Error(job.error_message);
        if (job.state === 'cancelled') throw new Error('The reading was cancelled. Read it again.');
        this.say(job.note || (job.state === 'queued' ? 'Waiting for its turn…' : 'Reading…'));
        await new Promise(go => { setTimeout(go, POLL_MS); });
      }
    } catch (error) {
      if (turn === this.asked) this.refuse(error.message);
    }
  }

  async ask(url, options = {}) {
    const headers = { Accept: 'application/json', ...options.headers };
    const response = await fetch(url, { ...options, headers });
    const body = await response.json().catch(() => ({}));
    if (response.ok) return body;
    throw new Error(body.error?.message ?? body.message ?? 'The server did not answer as expected. Try again.');
  }

  say(text) { this.state.textContent = text; }

  refuse(text) {
    this.say('');
    this.error.querySelector('p').textContent = text;
    this.error.hidden = false;
    this.result.hidden = true;
  }

  draw({ tokens, fired, threshold }) {
    const far = Math.max(1e-9, ...tokens.map(([, score]) => (score === null ? 0 : Math.abs(score - threshold))));
    this.spans = tokens.map(([text, score], i) => {
      const span = document.createElement('span');
      span.className = tint(score, threshold, far);
      span.textContent = text; // what a model or a person wrote is text, whatever it looks like
      span.dataset.place = i;
      return span;
    });
    this.read_ = { tokens, threshold };
    this.here = -1;
    this.tokens.replaceChildren(...this.spans);
    this.about.textContent = 'Point at a token to see its score.';
    this.result.hidden = false;
    this.say(fired ? `${fired} of ${tokens.length} tokens fire.` : `None of ${tokens.length} tokens fires.`);
  }

  walk(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !this.spans) return;
    event.preventDefault();
    const place = Math.min(this.spans.length - 1, Math.max(0, this.here + step));
    this.tell(this.spans[place]);
  }

  tell(span) {
    if (!this.spans || !(span.dataset?.place)) return;
    this.spans[this.here]?.classList.remove('is-here');
    this.here = Number(span.dataset.place);
    span.classList.add('is-here');
    const [text, score] = this.read_.tokens[this.here];
    const shown = JSON.stringify(text);
    if (score === null) this.about.textContent = `${shown}: a special token, not read`;
    else this.about.textContent = `${shown}: ${score.toFixed(3)}, ${score > this.read_.threshold ? 'fires' : 'does not fire'} (threshold ${this.read_.threshold.toFixed(3)})`;
  }
}

function tint(score, threshold, far) {
  if (score === null) return 'rt rt-none';
  const share = (score - threshold) / far;
  const step = Math.ceil(Math.abs(share) * STEPS);
  if (score > threshold) return `rt rt-p${step} rt-fired`;
  return step ? `rt rt-n${Math.ceil(step / 2)}` : 'rt'; // fainter: what does not fire is the ground
}

document.querySelectorAll('[data-threshold]').forEach(setUpThreshold);
document.querySelectorAll('[data-read]').forEach(form => new Reader(form));
