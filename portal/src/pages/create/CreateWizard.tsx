// A new machine in a few steps: from what, how large, who logs in, and a last look.
import { useState } from 'preact/hooks';
import { post } from '../../api/client';
import { Problem, problemAt, sayProblem } from '../../api/problem';
import type { Task } from '../../api/types';
import { link, navigate, route } from '../../lib/router';
import { notify } from '../../state/notices';
import { has, putTask, splitObject, templates } from '../../state/store';
import { Banner } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { Dialog } from '../../ui/Dialog';
import { missing, newDraft, stepOf, toRequest, type Draft } from './draft';
import { GuestStep } from './GuestStep';
import { MachineStep } from './MachineStep';
import { ReviewStep } from './ReviewStep';
import { SourceStep } from './SourceStep';
import { Steps } from './Steps';

export interface StepProps {
  draft: Draft;
  set(part: Partial<Draft>): void;
  at(pointer: string): string | null;
}

const STEPS = [
  { name: 'source', title: 'Source', view: SourceStep },
  { name: 'machine', title: 'Machine', view: MachineStep },
  { name: 'guest', title: 'First start', view: GuestStep },
  { name: 'review', title: 'Review', view: ReviewStep },
];

function startDraft(): Draft {
  const from = route.value.query.get('from');
  const template = templates.items.value.find((t) => t.id === route.value.query.get('template'));
  if (template)
    return {
      ...newDraft(),
      source: 'template',
      from: template.id,
      os: template.os ?? '',
      cpus: template.cpus,
      memory: template.memory,
    };
  return from ? { ...newDraft(), from } : newDraft();
}

export function CreateWizard({ onClose }: { onClose(): void }) {
  const [draft, setDraft] = useState(startDraft);
  const [step, setStep] = useState(0);
  const [wrong, setWrong] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const steps = STEPS.filter(
    (s) => s.name !== 'guest' || (draft.source === 'image' && has('cloud-init')),
  );
  const current = steps[Math.min(step, steps.length - 1)]!;
  const lacks = missing(draft);
  const last = current.name === 'review';
  const blocked = (name: string): boolean =>
    (name === 'source' && lacks.source) || (name === 'machine' && lacks.machine);

  const create = async (): Promise<void> => {
    setBusy(true);
    setWrong(null);
    try {
      const task = await post<Task>('/machines', toRequest(draft));
      putTask(task);
      onClose();
      const [, id] = splitObject(task.object);
      if (id) navigate(link('machines', id));
      notify(`${draft.name} is being made.`, 'ok');
    } catch (error) {
      setWrong(error);
      const to = error instanceof Problem ? stepOf(error.field) : null;
      const index = steps.findIndex((s) => s.name === to);
      if (index >= 0) setStep(index);
    } finally {
      setBusy(false);
    }
  };
  const next = (): void => {
    if (blocked(current.name)) return;
    if (last) void create();
    else setStep(step + 1);
  };
  const View = current.view;
  return (
    <Dialog
      title="New machine"
      size="large"
      onClose={onClose}
      onSubmit={next}
      footer={
        <>
          {step > 0 && (
            <span class="start">
              <Button onClick={() => setStep(step - 1)}>Back</Button>
            </span>
          )}
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" variant="primary" disabled={blocked(current.name) || busy}>
            {last ? (draft.start ? 'Create and start' : 'Create') : 'Next'}
          </Button>
        </>
      }
    >
      <div class="wizard">
        <Steps
          titles={steps.map((s) => s.title)}
          current={step}
          open={(i) => steps.slice(0, i).every((s) => !blocked(s.name))}
          onPick={setStep}
        />
        <div class="stack">
          {wrong !== null && <Banner tone="bad">{sayProblem(wrong)}</Banner>}
          <View
            draft={draft}
            set={(part) => setDraft({ ...draft, ...part })}
            at={(pointer) => problemAt(wrong, pointer)}
          />
        </div>
      </div>
    </Dialog>
  );
}
