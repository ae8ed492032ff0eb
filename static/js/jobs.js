// Rows of running jobs: asks how each one is doing, draws it, cancels it, and goes on to its result.
import { csrfToken, toast } from './base.js';
import './copy.js';

const POLL_MS = 500;
const POLL_HIDDEN_MS = 5000;
const POLL_OFFLINE_MS = 3000;
const ENDINGS = { succeeded: 'done', failed: 'failed', cancelled: 'cancelled' };

/** A length of time as people say it: 3.8 s, 2 min 5 s, 1 h 12 min. */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

class JobRow {
  constructor(row) {
    this.row = row;
    this.bar = row.querySelector('progress');
    this.estimate = row.querySelector('[data-job-estimate]');
    this.note = row.querySelector('[data-job-note]');
    this.form = row.querySelector('[data-job-cancel]');
    this.finishing = row.querySelector('[data-job-finish]');
    this.form.addEventListener('submit', event => this.ask(event, this.form, 'Not cancelled'));
    this.finishing?.addEventListener('submit', event => this.ask(event, this.finishing, 'Not stopped'));
    this.poll();
  }

  async poll() {
    let wait = document.hidden ? POLL_HIDDEN_MS : POLL_MS;
    try {
      const response = await fetch(this.row.dataset.job, { headers: { Accept: 'application/json' } });
      if (!response.ok || response.redirected) throw new Error(String(response.status));
      if (this.draw(await response.json())) return;
    } catch {
      this.estimate.textContent = 'no connection, trying again';
      wait = POLL_OFFLINE_MS;
    }
    setTimeout(() => this.poll(), wait);
  }

  /** Cancel, or stop and keep the best. */
  async ask(event, form, trouble) {
    event.preventDefault();
    const button = form.querySelector('button');
    button.disabled = true;
    try {
      const headers = { Accept: 'application/json', 'X-CSRFToken': csrfToken() };
      const response = await fetch(form.action, { method: 'POST', headers });
      if (!response.ok) throw new Error(String(response.status));
      if (form === this.finishing) button.textContent = 'Stopping';
      this.draw(await response.json());
    } catch {
      button.disabled = false;
      toast(trouble, 'The server did not answer. Try again in a moment.');
    }
  }

  /** Show a status; true when the job has ended. */
  draw(job) {
    if (this.row.dataset.state in ENDINGS) return true;
    this.row.dispatchEvent(new CustomEvent('steerboard:job', { bubbles: true, detail: job }));
    this.row.dataset.state = job.state;
    this.drawBar(job);
    if (!(job.state in ENDINGS)) {
      this.estimate.textContent = waitingFor(job);
      this.note.textContent = job.note ? ` · ${job.note}` : '';
      return false;
    }
    this.end(job);
    return true;
  }

  drawBar(job) {
    if (!job.total) return;
    this.bar.max = job.total;
    this.bar.value = job.state === 'succeeded' ? job.total : job.done;
  }

  end(job) {
    const { follow } = this.row.dataset;
    if (follow === 'result' && job.result_url) return location.assign(job.result_url);
    if (follow) return location.reload();
    this.row.querySelector('.spin').hidden = true;
    this.estimate.textContent = ENDINGS[job.state];
    this.note.textContent = job.error_message ? ` · ${job.error_message}` : '';
    this.finishing?.remove();
    this.form.replaceWith(...openLink(job));
    say(`${job.title}: ${ENDINGS[job.state]}`);
  }
}

function waitingFor(job) {
  if (job.state === 'queued') return 'waiting for its turn';
  return job.eta_seconds === null ? 'working' : `about ${duration(job.eta_seconds)} left`;
}

function openLink(job) {
  if (!job.result_url) return [];
  const link = document.createElement('a');
  link.className = 'btn btn-sm';
  link.href = job.result_url;
  link.textContent = 'Open result';
  return [link];
}

function say(text) {
  const voice = document.querySelector('[data-job-voice]');
  if (voice) voice.textContent = text;
}

for (const row of document.querySelectorAll('[data-job]')) {
  if (!(row.dataset.state in ENDINGS)) new JobRow(row);
}
