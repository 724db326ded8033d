// What went wrong with a request: the server's problem details (RFC 9457), or why there was no answer.
import type { ProblemDetails } from './types';

export class Problem extends Error {
  readonly status: number;
  /** The last part of the problem's type: `not-found`, `invalid`, ...; `network` without an answer. */
  readonly kind: string;
  /** JSON pointer of the member that is wrong. */
  readonly field: string | null;

  constructor(status: number, kind: string, message: string, field: string | null = null) {
    super(message);
    this.status = status;
    this.kind = kind;
    this.field = field;
  }

  static fromDetails(details: ProblemDetails, status = details.status ?? 500): Problem {
    const kind = details.type?.split('/').pop() || 'internal';
    const text = details.detail || details.title || `The server answered ${status}.`;
    return new Problem(status, kind, text, details.field ?? null);
  }

  static async fromResponse(response: Response): Promise<Problem> {
    try {
      return Problem.fromDetails((await response.json()) as ProblemDetails, response.status);
    } catch {
      return new Problem(response.status, 'internal', `The server answered ${response.status}.`);
    }
  }
}

/** A sentence for the user, whatever was thrown. */
export function sayProblem(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Whether a problem names this member: `/cloud_init/user` or a part of it. */
export function problemAt(error: unknown, pointer: string): string | null {
  if (!(error instanceof Problem) || error.field === null) return null;
  return error.field === pointer || error.field.startsWith(`${pointer}/`) ? error.message : null;
}

/** Whether one of these members is what is wrong. */
export const isNamed = (error: unknown, pointers: string[]): boolean =>
  pointers.some((pointer) => problemAt(error, pointer) !== null);
