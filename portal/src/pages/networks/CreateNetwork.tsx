import { useState } from 'preact/hooks';
import { post } from '../../api/client';
import type { Network } from '../../api/types';
import { link, navigate } from '../../lib/router';
import { has, networks } from '../../state/store';
import { Banner } from '../../ui/bits';
import { TextField } from '../../ui/Field';
import { FormDialog } from '../FormDialog';
import { createBody, FRESH, wrongIn, type NetworkDraft } from './draft';
import {
  FoundingFields,
  PacketFields,
  ReservationFields,
  ServiceFields,
  VlanFields,
} from './NetworkFields';
import { NETWORK_FIELDS, TYPES, type NetworkType } from './types';

const offered = (type: NetworkType): boolean => type === 'user' || has(`network-${type}`);

export function CreateNetwork({ onClose }: { onClose(): void }) {
  const [type, setType] = useState<NetworkType>('user');
  const [now, setNow] = useState<NetworkDraft>(FRESH);
  const set = (part: Partial<NetworkDraft>): void => setNow({ ...now, ...part });
  const wrong = wrongIn(now);
  return (
    <FormDialog
      title="New network"
      action="Create"
      size="medium"
      ready={now.name.trim() !== '' && !Object.keys(wrong).length}
      fields={NETWORK_FIELDS}
      onClose={onClose}
      send={async () => {
        const made = await post<Network>('/networks', createBody(type, now));
        await networks.load();
        navigate(link('networks', made.id));
      }}
    >
      {(said) => {
        const at = (pointer: string): string | null =>
          wrong[pointer.slice(1) as keyof NetworkDraft] ?? said(pointer);
        const fields = { type, now, set, at };
        return (
          <>
            <div class="choices" role="radiogroup" aria-label="Type">
              {(Object.keys(TYPES) as NetworkType[]).filter(offered).map((t) => (
                <button
                  key={t}
                  type="button"
                  class="choice"
                  role="radio"
                  aria-checked={type === t}
                  onClick={() => setType(t)}
                >
                  <b>{TYPES[t].label}</b>
                  <span>{TYPES[t].hint}</span>
                </button>
              ))}
            </div>
            {at('/type') && <Banner tone="bad">{at('/type')}</Banner>}
            <div class="form">
              <TextField
                label="Name"
                value={now.name}
                onInput={(name) => set({ name })}
                error={at('/name')}
                autoFocus
              />
              <FoundingFields {...fields} />
              <VlanFields {...fields} />
              <PacketFields {...fields} />
              <ServiceFields {...fields} />
              {type !== 'user' && <ReservationFields {...fields} />}
            </div>
          </>
        );
      }}
    </FormDialog>
  );
}
