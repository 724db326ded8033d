// Loading for pages: one object or list of the server, again when something it depends on changes.
import { useEffect, useRef, useState } from 'preact/hooks';
import { sayProblem } from '../api/problem';
import type { Collection } from '../state/store';
import type { Listed } from '../ui/Listing';

export interface Loaded<T> {
  value: T | undefined;
  problem: string | null;
  /** The error itself, for who wants to know its status. */
  error: unknown;
  reload(): void;
}

/** Keeps the last value while it loads again; a late answer to an old question is dropped. */
export function useLoaded<T>(load: () => Promise<T>, keys: unknown[], everyMs = 0): Loaded<T> {
  const [value, setValue] = useState<T | undefined>(undefined);
  const [error, setError] = useState<unknown>(null);
  const [turn, setTurn] = useState(0);
  const latest = useRef(0);
  useEffect(() => {
    const mine = ++latest.current;
    const ask = (): void =>
      void load().then(
        (loaded) => {
          if (mine !== latest.current) return;
          setValue(loaded);
          setError(null);
        },
        (problem: unknown) => mine === latest.current && setError(problem),
      );
    ask();
    const timer = everyMs ? setInterval(() => document.hidden || ask(), everyMs) : undefined;
    return () => {
      clearInterval(timer);
      latest.current++;
    };
  }, [...keys, turn]);
  const reload = (): void => setTurn((t) => t + 1);
  return { value, problem: error ? sayProblem(error) : null, error, reload };
}

export function useCollection<T>(collection: Collection<T>): T[] {
  useEffect(() => collection.ensure(), [collection]);
  return collection.items.value;
}

/** A collection as a list is shown. */
export function useListed<T>(collection: Collection<T>): Listed<T> {
  const items = useCollection(collection);
  return {
    items,
    loaded: collection.loaded.value,
    problem: collection.problem.value,
    reload: () => collection.load(),
  };
}

/** What was loaded as a list is shown. */
export function listedOf<T>({ value, problem, reload }: Loaded<T[]>): Listed<T> {
  return { items: value ?? [], loaded: value !== undefined, problem, reload };
}
