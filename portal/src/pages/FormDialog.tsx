// A dialog that sends a form: it shows what the server finds wrong at the field it names.
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { isNamed, problemAt, sayProblem } from '../api/problem';
import { Banner } from '../ui/bits';
import { Button } from '../ui/Button';
import { Dialog } from '../ui/Dialog';

interface FormDialogProps {
  title: string;
  action: string;
  ready?: boolean;
  size?: 'small' | 'medium' | 'large';
  /** Members with a field of their own, as JSON pointers: other problems stand above the form. */
  fields?: string[];
  children: (at: (pointer: string) => string | null) => ComponentChildren;
  send(): Promise<unknown>;
  onClose(): void;
}

export function FormDialog(props: FormDialogProps) {
  const [wrong, setWrong] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const submit = async (): Promise<void> => {
    if (props.ready === false || busy) return;
    setBusy(true);
    setWrong(null);
    try {
      await props.send();
      props.onClose();
    } catch (error) {
      setWrong(error);
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog
      title={props.title}
      size={props.size ?? 'small'}
      onClose={props.onClose}
      onSubmit={() => void submit()}
      footer={
        <>
          <Button onClick={props.onClose}>Cancel</Button>
          <Button type="submit" variant="primary" disabled={props.ready === false || busy}>
            {props.action}
          </Button>
        </>
      }
    >
      <div class="stack">
        {wrong !== null && !isNamed(wrong, props.fields ?? []) && (
          <Banner tone="bad">{sayProblem(wrong)}</Banner>
        )}
        {props.children((pointer) => problemAt(wrong, pointer))}
      </div>
    </Dialog>
  );
}
