// Short messages at the edge of the screen, and the one question that may be open.
import { signal } from '@preact/signals';
import { sayProblem } from '../api/problem';
import type { Tone } from '../lib/format';

export interface Notice {
  id: number;
  tone: Tone;
  text: string;
  href?: string;
}

export const notices = signal<Notice[]>([]);
let last = 0;

export function notify(text: string, tone: Tone = 'info', href?: string): void {
  const notice = { id: ++last, tone, text, href };
  notices.value = [...notices.value, notice].slice(-4);
  setTimeout(() => dismiss(notice.id), tone === 'bad' ? 12_000 : 5_000);
}

export function dismiss(id: number): void {
  notices.value = notices.value.filter((n) => n.id !== id);
}

export const notifyProblem = (what: string, error: unknown): void =>
  notify(`${what}: ${sayProblem(error)}`, 'bad');

export interface Question {
  title: string;
  /** What will happen, in plain sentences. */
  body: string[];
  /** Names of what it happens to. */
  items?: string[];
  action: string;
  danger?: boolean;
  /** Must be typed before the action can be taken. */
  typed?: string;
  choices?: { value: string; label: string; hint?: string }[];
  choice?: string;
  resolve(answer: string | null): void;
}

export const question = signal<Question | null>(null);

/** @returns the choice ('' where there are none) or null when the user declined */
export function ask(asked: Omit<Question, 'resolve'>): Promise<string | null> {
  question.value?.resolve(null);
  return new Promise((resolve) => {
    question.value = {
      ...asked,
      resolve: (answer) => {
        question.value = null;
        resolve(answer);
      },
    };
  });
}
