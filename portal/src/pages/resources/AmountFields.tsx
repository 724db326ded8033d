// Shares, reservation and limits of one resource, of a pool or a machine.
import { CheckField, NumberField, SelectField } from '../../ui/Field';
import { isLevel, type Amounts, type ResourceField } from './amounts';

interface AmountFieldsProps {
  field: ResourceField;
  /** Without a heading of its own: what it is in has one. */
  bare?: boolean;
  value: Amounts;
  onChange(value: Amounts): void;
  /** What is wrong with a member. */
  at(member: string): string | null;
}

export function AmountFields({ field, bare, value, onChange, at }: AmountFieldsProps) {
  const { title } = field;
  const level = isLevel(value.shares) ? String(value.shares) : 'custom';
  const shown = (n: unknown, scale: number): number | null =>
    typeof n === 'number' ? n / scale : null;
  const kept = (n: number | null, scale: number): number | null =>
    n === null || Number.isNaN(n) ? null : Math.round(n * scale);
  return (
    <>
      {!bare && <h3>{title}</h3>}
      <SelectField
        label={`${title} shares`}
        value={level}
        onInput={(to) => onChange({ ...value, shares: to === 'custom' ? 1000 : to })}
        options={[
          { value: 'low', label: 'Low' },
          { value: 'normal', label: 'Normal' },
          { value: 'high', label: 'High' },
          { value: 'custom', label: 'Custom' },
        ]}
        error={level === 'custom' ? null : at('shares')}
      />
      {level === 'custom' && (
        <NumberField
          label={`${title} shares, custom`}
          min={1}
          value={Number(value.shares)}
          onInput={(n) => onChange({ ...value, shares: n ?? 1 })}
          error={at('shares')}
        />
      )}
      <NumberField
        label={`${title} reservation`}
        unit={field.unit}
        min={0}
        value={shown(value.reservation ?? 0, field.scale)}
        onInput={(n) => onChange({ ...value, reservation: kept(n, field.scale) ?? 0 })}
        error={at('reservation')}
      />
      {field.limits.map((limit) => (
        <NumberField
          key={limit.member}
          label={limit.label}
          unit={limit.unit}
          min={0}
          placeholder="none"
          value={shown(value[limit.member], limit.scale)}
          onInput={(n) => onChange({ ...value, [limit.member]: kept(n, limit.scale) })}
          error={at(limit.member)}
        />
      ))}
      {'expandable' in value && (
        <CheckField
          label={`${title}: more may come from the pool above`}
          hint="Else its reservation is all that can be promised in it"
          checked={value.expandable !== false}
          onInput={(expandable) => onChange({ ...value, expandable })}
        />
      )}
    </>
  );
}
