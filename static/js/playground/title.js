// The line above the lanes: the run's name, which can be edited in place, its versions, and its link.
import { csrfToken, toast } from '../base.js';
import { $, copy } from './dom.js';

export class Title {
  #run = null;

  constructor() {
    $('rename').addEventListener('click', () => this.#edit());
    $('title').addEventListener('blur', () => this.#save());
    $('title').addEventListener('keydown', event => {
      if (event.key === 'Enter') { event.preventDefault(); $('title').blur(); }
      if (event.key === 'Escape') { event.preventDefault(); this.#leave(); }
    });
    $('share').addEventListener('click', () => this.share());
    $('version-previous').addEventListener('click', () => this.go(-1));
    $('version-next').addEventListener('click', () => this.go(1));
  }

  /** `run` is { id, title, versions } or null while nothing has run. */
  draw(run) {
    this.#run = run;
    $('new-title').hidden = Boolean(run);
    for (const id of ['rename', 'share', 'saved']) $(id).hidden = !run;
    if (!run) return;
    $('rename').querySelector('span').textContent = run.title;
    $('rename').setAttribute('aria-label', `Rename run: ${run.title}`);
    $('saved').querySelector('span').textContent = `Saved as you go · run ${run.id.slice(0, 5)}`;
    $('new').href = `/playground/?from=${run.id}`;
    document.title = `${run.title} · Steerboard`;
    const place = run.versions.indexOf(run.id);
    $('versions').hidden = run.versions.length < 2;
    $('version-text').textContent = `version ${place + 1} of ${run.versions.length}`;
    $('version-previous').disabled = place <= 0;
    $('version-next').disabled = place >= run.versions.length - 1;
  }

  unsaved() {
    $('saved').querySelector('span').textContent = 'Not saved: the database refused. Copy what you need.';
    $('saved').classList.add('neg');
  }

  get hasVersions() { return (this.#run?.versions.length ?? 0) > 1; }

  go(step) {
    const { id, versions } = this.#run ?? { versions: [] };
    const to = versions[versions.indexOf(id) + step];
    if (to) location.assign(`/playground/${to}/`);
  }

  async share() {
    if (!this.#run) return;
    const link = `${location.origin}/playground/${this.#run.id}/`;
    if (await copy(link)) toast('Link copied', 'It opens this run with all its settings, for you when you are signed in.');
    else toast('The browser did not allow copying', link);
  }

  #edit() {
    const input = $('title');
    input.value = this.#run.title;
    $('rename').hidden = true;
    input.hidden = false;
    input.select();
  }

  #leave() {
    $('title').hidden = true;
    $('rename').hidden = false;
    $('rename').focus();
  }

  async #save() {
    const input = $('title'), run = this.#run;
    if (input.hidden) return;
    input.hidden = true;
    $('rename').hidden = false;
    const title = input.value.trim();
    if (!title || title === run.title) return;
    const body = new URLSearchParams({ title });
    try {
      const response = await fetch(`/playground/${run.id}/rename/`, { method: 'POST', body, headers: { 'X-CSRFToken': csrfToken(), Accept: 'application/json' } });
      const answer = await response.json();
      if (!response.ok) throw new Error(answer.message);
      run.title = answer.title;
      this.draw(run);
    } catch (error) {
      toast('The name was not saved', error.message || 'The server did not answer. Try again in a moment.');
    }
  }
}
