package dnsbench

import "slices"

// Spread of a figure over the rounds.
type Spread struct {
	Median, Min, Max float64
}

// spreadOf is zero without values.
func spreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return Spread{(sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1]}
}

func rate(m measurement) float64 { return m.Rate }
func cpu(m measurement) float64  { return m.CPU }

func (row *Row) values(of func(measurement) float64) (all []float64) {
	for _, m := range row.rounds {
		all = append(all, of(m))
	}
	return all
}

func (r *Result) row(part, kind, server string) *Row {
	for i := range r.Rows {
		if row := &r.Rows[i]; row.Part == part && row.Kind == kind && row.Server == server {
			return row
		}
	}
	return nil
}

// ratio adds a bar: ours, of the best other in the same round. Without any of
// them there is no bar.
func (r *Result) ratio(what string, want float64, most bool, of func(measurement) float64, part, kind string, others ...string) {
	mine := r.row(part, kind, weir)
	if mine == nil {
		return
	}
	var ratios []float64
	for i, m := range mine.rounds {
		var theirs []float64
		for _, name := range others {
			if other := r.row(part, kind, name); other != nil && i < len(other.rounds) {
				theirs = append(theirs, of(other.rounds[i]))
			}
		}
		if len(theirs) == 0 {
			return
		}
		best := slices.Max(theirs)
		if most {
			best = slices.Min(theirs)
		}
		if best > 0 {
			ratios = append(ratios, of(m)/best)
		}
	}
	r.Bars = append(r.Bars, Bar{What: what, Want: want, Most: most, Got: spreadOf(ratios)})
}

// own adds a bar: one rate of ours, of another one.
func (r *Result) own(what string, want float64, part, kind, otherPart, otherKind string) {
	mine, other := r.row(part, kind, weir), r.row(otherPart, otherKind, weir)
	if mine == nil || other == nil {
		return
	}
	var ratios []float64
	for i := range min(len(mine.rounds), len(other.rounds)) {
		if other.rounds[i].Rate > 0 {
			ratios = append(ratios, mine.rounds[i].Rate/other.rounds[i].Rate)
		}
	}
	r.Bars = append(r.Bars, Bar{What: what, Want: want, Got: spreadOf(ratios)})
}

// single adds a bar of one value.
func (r *Result) single(what string, want float64, most bool, got float64, unit string) {
	r.Bars = append(r.Bars, Bar{What: what, Want: want, Most: most, Got: Spread{got, got, got}, Unit: unit})
}
