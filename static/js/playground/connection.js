// The websocket: reconnects with growing, random pauses, and goes on from the last event it has seen.
//
// A press of Run is sent again until it is accepted; its `idem` keeps the server from running it twice. Events carry
// numbers without gaps, so that each reaches the page exactly once, whatever happens to the line.
import { csrfToken } from '../base.js';

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15000;
const PING_MS = 20000;
const SILENCE_MS = 45000;
const SIGNED_OUT = 4401;
const PROTOCOL = 'steerboard.v1';

export class Connection extends EventTarget {
  #socket = null;
  #attempts = 0;
  #heard = 0;
  #timer = null;
  #pending = new Map();
  #followed = new Map();
  state = 'connecting';

  constructor() {
    super();
    this.#open();
    setInterval(() => this.#ping(), PING_MS);
    addEventListener('online', () => this.#hurry());
    document.addEventListener('visibilitychange', () => document.hidden || this.#hurry());
  }

  get ready() { return this.#socket?.readyState === WebSocket.OPEN; }

  /** Resolves with the server's `accepted`, rejects with its `error`. */
  run(message) {
    const idem = randomId();
    return new Promise((resolve, reject) => {
      this.#pending.set(idem, { message: { t: 'run', idem, ...message }, resolve, reject });
      this.#say(this.#pending.get(idem).message);
    });
  }

  /** Call `event` with every event of a run from its first; `reset` when all of them come again.
   *  A run that was just accepted on this line is `fresh`: the server sends its events unasked. */
  follow(run, { event, reset, failed = () => {}, fresh = false }) {
    this.#followed.set(run, { last: -1, event, reset, failed });
    if (!fresh) this.#say({ t: 'subscribe', run, after: -1 });
  }

  leave(run) {
    if (this.#followed.delete(run)) this.#say({ t: 'unsubscribe', run });
  }

  /** Over the socket, or over plain HTTP while it is down. */
  stop(run, lane = null) {
    if (this.ready) return this.#say({ t: 'stop', run, lane });
    const body = new URLSearchParams(lane ? { lane } : {});
    return fetch(`/playground/${run}/stop/`, { method: 'POST', body, headers: { 'X-CSRFToken': csrfToken() } }).catch(() => {});
  }

  preview(message) { this.#say({ t: 'preview', ...message }); }

  // ---- the line ----

  #open() {
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const socket = new WebSocket(`${scheme}://${location.host}/ws/playground/`, [PROTOCOL]);
    let opened = false;
    socket.onopen = () => { opened = true; this.#opened(); };
    socket.onmessage = ({ data }) => this.#hear(JSON.parse(data));
    socket.onclose = ({ code }) => { if (this.#socket === socket) this.#closed(opened, code); };
    this.#socket = socket;
  }

  #opened() {
    this.#attempts = 0;
    this.#heard = Date.now();
    for (const [run, { last }] of this.#followed) this.#say({ t: 'subscribe', run, after: last });
    for (const { message } of this.#pending.values()) this.#say(message);
    this.#become('open');
  }

  async #closed(opened, code) {
    this.#socket = null;
    if (code === SIGNED_OUT || (!opened && await signedOut())) return this.#become('signed-out');
    const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#attempts++);
    this.#become('reconnecting');
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), pause * (0.5 + Math.random() / 2));
  }

  #hurry() {
    if (this.state !== 'reconnecting' || this.#socket) return;
    clearTimeout(this.#timer);
    this.#open();
  }

  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.dispatchEvent(new CustomEvent('state', { detail: state }));
  }

  #ping() {
    if (!this.ready) return;
    if (Date.now() - this.#heard > SILENCE_MS) this.#socket.close();
    else this.#say({ t: 'ping' });
  }

  #say(message) {
    if (this.ready) this.#socket.send(JSON.stringify(message));
  }

  // ---- what the server says ----

  #hear(message) {
    this.#heard = Date.now();
    if (message.t === 'events') this.#events(message.run, message.events);
    else if (message.t === 'reset') this.#reset(message.run);
    else if (message.t === 'accepted') this.#accepted(message);
    else if (message.t === 'preview') this.dispatchEvent(new CustomEvent('preview', { detail: message }));
    else if (message.t === 'error') this.#error(message);
  }

  #accepted(message) {
    const pending = this.#pending.get(message.idem);
    this.#pending.delete(message.idem);
    pending?.resolve(message);
  }

  #events(run, events) {
    const followed = this.#followed.get(run);
    if (!followed) return;
    for (const event of events) {
      if (event.seq <= followed.last) continue;
      if (event.seq > followed.last + 1) return this.#say({ t: 'subscribe', run, after: followed.last });
      followed.last = event.seq;
      followed.event(event);
      if (event.t === 'run_finished') this.#followed.delete(run);
    }
  }

  #reset(run) {
    const followed = this.#followed.get(run);
    if (!followed) return;
    followed.last = -1;
    followed.reset();
  }

  #error(message) {
    const pending = this.#pending.get(message.idem);
    if (pending) {
      this.#pending.delete(message.idem);
      pending.reject(message);
    } else if (message.nonce != null) {
      this.dispatchEvent(new CustomEvent('preview', { detail: message }));
    } else if (this.#followed.has(message.run)) {
      this.#followed.get(message.run).failed(message);
    }
  }
}

/** Whether the server no longer knows us: then it sends every page to the sign-in form. */
async function signedOut() {
  try {
    const response = await fetch('/status.json', { redirect: 'manual' });
    return response.type === 'opaqueredirect' || response.status === 401 || response.status === 403;
  } catch {
    return false;
  }
}

function randomId() {
  if (crypto.randomUUID) return crypto.randomUUID(); // only there on https and on this machine itself
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map(byte => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
