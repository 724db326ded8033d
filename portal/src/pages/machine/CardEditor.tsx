import { Plus, Trash2 } from '../../ui/icons';
import type { NetworkConfig } from '../../api/types';
import { networks } from '../../state/store';
import { Panel } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { SelectField, TextField } from '../../ui/Field';
import { useCollection } from '../use-loaded';

export const CARD_MODELS = ['virtio', 'e1000e', 'vmxnet3'];

interface CardEditorProps {
  cards: NetworkConfig[];
  onChange(cards: NetworkConfig[]): void;
  error: string | null;
}

export function CardEditor({ cards, onChange, error }: CardEditorProps) {
  const known = useCollection(networks);
  const set = (index: number, part: Partial<NetworkConfig>): void =>
    onChange(cards.map((card, i) => (i === index ? { ...card, ...part } : card)));
  const vlansOf = (card: NetworkConfig): number[] =>
    known.find((n) => n.name === card.name)?.vlans ?? [];
  const choose = (index: number, name: string): void => {
    const network = known.find((n) => n.name === name);
    set(
      index,
      name === 'none'
        ? { type: 'none', name: undefined }
        : { type: network?.type === 'user' || !network ? 'user' : 'host', name, vlan: undefined },
    );
  };
  return (
    <Panel
      title="Network cards"
      actions={
        <Button
          small
          icon={Plus}
          disabled={cards.length >= 8}
          onClick={() =>
            onChange([
              ...cards,
              { type: 'user', name: known[0]?.name ?? 'default', model: 'virtio' },
            ])
          }
        >
          Add
        </Button>
      }
    >
      <div class="entries">
        {!cards.length && <p class="muted">None.</p>}
        {error && <p class="bad-text">{error}</p>}
        {cards.map((card, i) => (
          <div class="entry" key={i}>
            <SelectField
              label={`Network of card ${i + 1}`}
              value={card.type === 'none' ? 'none' : (card.name ?? 'default')}
              onInput={(name) => choose(i, name)}
              options={[
                ...new Map(
                  [...known.map((n) => n.name), card.name ?? 'default'].map((name) => [
                    name,
                    { value: name, label: name },
                  ]),
                ).values(),
                { value: 'none', label: 'Not connected' },
              ]}
            />
            <SelectField
              label="Model"
              value={card.model ?? 'virtio'}
              onInput={(model) => set(i, { model })}
              options={[...new Set([...CARD_MODELS, card.model ?? 'virtio'])].map((m) => ({
                value: m,
                label: m,
              }))}
            />
            {vlansOf(card).length > 0 && (
              <SelectField
                label={`VLAN of card ${i + 1}`}
                value={String(card.vlan ?? '')}
                onInput={(vlan) => set(i, { vlan: vlan ? Number(vlan) : undefined })}
                options={[
                  { value: '', label: "the network's" },
                  ...vlansOf(card).map((v) => ({ value: String(v), label: String(v) })),
                ]}
              />
            )}
            {card.type !== 'host' && (
              <TextField
                label="Forwarded ports"
                placeholder="tcp:8080:80"
                value={(card.forward ?? []).join(' ')}
                onInput={(text) => {
                  const forward = text.split(/\s+/).filter(Boolean);
                  set(i, { forward: forward.length ? forward : undefined });
                }}
              />
            )}
            <Button
              icon={Trash2}
              variant="ghost"
              label={`Remove card ${i + 1}`}
              onClick={() => onChange(cards.filter((_, at) => at !== i))}
            />
          </div>
        ))}
      </div>
    </Panel>
  );
}
