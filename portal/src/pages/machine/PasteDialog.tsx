import { useState } from 'preact/hooks';
import { post } from '../../api/client';
import { sayProblem } from '../../api/problem';
import { Button } from '../../ui/Button';
import { Dialog } from '../../ui/Dialog';
import { TextField } from '../../ui/Field';

export function PasteDialog({ id, onClose }: { id: string; onClose(): void }) {
  const [text, setText] = useState('');
  const [wrong, setWrong] = useState<string | null>(null);
  const send = async (): Promise<void> => {
    try {
      await post(`/machines/${id}/keys`, { text });
      onClose();
    } catch (error) {
      setWrong(sayProblem(error));
    }
  };
  return (
    <Dialog
      title="Type text into the machine"
      onClose={onClose}
      onSubmit={() => void send()}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" variant="primary" disabled={!text}>
            Type it
          </Button>
        </>
      }
    >
      <TextField
        label="Text"
        hint="Sent as key presses of a US keyboard; a new line is the Enter key."
        rows={6}
        value={text}
        onInput={setText}
        error={wrong}
        autoFocus
      />
    </Dialog>
  );
}
