// The event stream: one WebSocket that is opened again, after the last event seen, when it is lost.
import { API } from './client';
import type { HostEvent } from './types';

export type StreamState = 'connecting' | 'live' | 'lost';

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;

/** How long to wait before the n-th attempt (from 0): doubling, with a random half against herds. */
export function reconnectDelay(attempt: number, random = Math.random()): number {
  const full = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(attempt, 10));
  return full / 2 + (full / 2) * random;
}

export class EventStream {
  private socket: WebSocket | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private attempt = 0;
  private stopped = true;
  private last: number | null = null;

  constructor(
    private readonly onEvent: (event: HostEvent) => void,
    private readonly onState: (state: StreamState, again: boolean) => void,
  ) {}

  start(): void {
    if (!this.stopped) return;
    this.stopped = false;
    this.open();
    window.addEventListener('online', this.retryNow);
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
    window.removeEventListener('online', this.retryNow);
    this.socket?.close();
    this.socket = null;
    this.last = null;
  }

  readonly retryNow = (): void => {
    if (this.stopped || this.socket) return;
    clearTimeout(this.timer);
    this.open();
  };

  private open(): void {
    const url = new URL(`${API}/events/stream`, window.location.href);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    if (this.last !== null) url.searchParams.set('after', String(this.last));
    this.onState('connecting', this.attempt > 0);
    const socket = new WebSocket(url);
    this.socket = socket;
    let opened = false;
    socket.onopen = () => {
      opened = true;
      const again = this.attempt > 0;
      this.attempt = 0;
      this.onState('live', again);
    };
    socket.onmessage = (message) => {
      if (typeof message.data !== 'string') return;
      const event = JSON.parse(message.data) as HostEvent;
      if (typeof event.id === 'number') this.last = Math.max(this.last ?? 0, event.id);
      this.onEvent(event);
    };
    socket.onclose = () => {
      if (this.socket !== socket || this.stopped) return;
      this.socket = null;
      this.onState('lost', opened);
      this.timer = setTimeout(() => this.open(), reconnectDelay(this.attempt++));
    };
  }
}
