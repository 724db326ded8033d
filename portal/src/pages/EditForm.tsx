// A form over something that others change, too: what they change is taken over until this user has begun
// to edit; what differs is sent, and what the server finds wrong stands at the field it names.
import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { isNamed, problemAt, sayProblem } from '../api/problem';
import { same } from '../lib/patch';
import { notify } from '../state/notices';
import { Banner } from '../ui/bits';
import { Button } from '../ui/Button';

export interface Edit<T> {
  now: T;
  set(part: Partial<T>): void;
  /** What is wrong with this member, as a JSON pointer. */
  at(pointer: string): string | null;
}

interface EditFormProps<T> {
  base: T;
  disabled: boolean;
  /** Members with a field of their own, as JSON pointers: other problems stand above the form. */
  fields: string[];
  /** Whether it can be sent as it is. */
  ready?(now: T): boolean;
  send(now: T): Promise<unknown>;
  /** What is said beside the button, and after it was pressed. */
  note: string;
  saved: string;
  above?: ComponentChildren;
  children(edit: Edit<T>): ComponentChildren;
}

export function EditForm<T extends object>(props: EditFormProps<T>) {
  const { base } = props;
  const [now, setNow] = useState(base);
  const [edited, setEdited] = useState(false);
  const [wrong, setWrong] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    if (!edited) setNow(base);
  }, [JSON.stringify(base)]);
  const set = (part: Partial<T>): void => {
    setEdited(true);
    setNow({ ...now, ...part });
  };
  const undo = (): void => {
    setNow(base);
    setEdited(false);
    setWrong(null);
  };
  const unready = props.ready?.(now) === false;
  const save = async (): Promise<void> => {
    if (busy || unready) return;
    setBusy(true);
    setWrong(null);
    try {
      await props.send(now);
      setEdited(false);
      notify(props.saved, 'ok');
    } catch (error) {
      setWrong(error);
    } finally {
      setBusy(false);
    }
  };
  return (
    <form
      class="hardware"
      noValidate
      onSubmit={(e) => {
        e.preventDefault();
        void save();
      }}
    >
      {props.above}
      {wrong !== null && !isNamed(wrong, props.fields) && (
        <Banner tone="bad">{sayProblem(wrong)}</Banner>
      )}
      <fieldset disabled={props.disabled}>
        <div class="grid">
          {props.children({ now, set, at: (pointer) => problemAt(wrong, pointer) })}
        </div>
      </fieldset>
      {edited && !same(base, now) && (
        <div class="save-bar" role="region" aria-label="Unsaved changes">
          <span>{props.note}</span>
          <Button onClick={undo}>Undo</Button>
          <Button type="submit" variant="primary" disabled={busy || unready}>
            Save
          </Button>
        </div>
      )}
    </form>
  );
}
