package bench

import "slices"

// Spread of a figure over the rounds.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf is zero without values.
func spreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	return Spread{median(values), slices.Min(values), slices.Max(values)}
}

// median is the middle value, or the mean of the two in the middle; 0 without
// values.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// ratios of the rounds of one to the same rounds of another. Rounds that either
// lacks, or where the other is zero, have none.
func ratios(of, to []float64) (all []float64) {
	for i := range min(len(of), len(to)) {
		if to[i] != 0 {
			all = append(all, of[i]/to[i])
		}
	}
	return all
}

// differences of the rounds of one and of another.
func differences(of, from []float64) (all []float64) {
	for i := range min(len(of), len(from)) {
		all = append(all, of[i]-from[i])
	}
	return all
}
