package jobs

import (
	"fmt"
	"slices"
	"time"
	_ "time/tzdata" // for machines that have no zones of their own

	"github.com/robfig/cron/v3"
)

// usualDeadline is how late a run may be started when its schedule does not say.
const usualDeadline = 900.0

// Next is the first time after that the schedule names; zero when it names none.
// Across a change of the clocks a time that is skipped makes no run, and one
// that comes twice makes one, unless the schedule is for every hour.
func (s Schedule) Next(after time.Time) (time.Time, error) {
	zone, err := s.zone()
	if err != nil {
		return time.Time{}, err
	}
	times, err := cron.ParseStandard(s.Cron)
	if err != nil {
		return time.Time{}, fmt.Errorf("cron: %q: %w", s.Cron, err)
	}
	next := times.Next(after.In(zone))
	if spec, ok := times.(*cron.SpecSchedule); ok && spec.Hour&everyHour == 0 {
		for !next.IsZero() && isSecond(next) {
			next = times.Next(next)
		}
	}
	return next, nil
}

// everyHour is how the parser marks a field that is a star.
const everyHour = 1 << 63

// isSecond tells whether a clock of the time's zone has shown it once before.
// Every zone that puts its clocks back does so by an hour or less.
func isSecond(t time.Time) bool {
	for _, back := range []time.Duration{30 * time.Minute, time.Hour} {
		earlier := t.Add(-back)
		if earlier.Hour() == t.Hour() && earlier.Minute() == t.Minute() && earlier.Day() == t.Day() {
			return true
		}
	}
	return false
}

func (s Schedule) zone() (*time.Location, error) {
	if s.Timezone == "" {
		return time.UTC, nil
	}
	zone, err := time.LoadLocation(s.Timezone)
	if err != nil {
		return nil, fmt.Errorf("timezone: %q is not known", s.Timezone)
	}
	return zone, nil
}

// Validate tells what is wrong with a schedule, the field first.
func (s Schedule) Validate() error {
	next, err := s.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		return err
	}
	switch {
	case s.ID == "":
		return fmt.Errorf("id: is missing")
	case next.IsZero():
		return fmt.Errorf("cron: %q names no time that ever comes", s.Cron)
	case s.StartingDeadlineSeconds < 0:
		return fmt.Errorf("startingDeadlineSeconds: %v must be 0 or more", s.StartingDeadlineSeconds)
	case s.Concurrency != "" && s.Concurrency != Allow && s.Concurrency != Forbid:
		return fmt.Errorf("concurrencyPolicy: %q must be ALLOW or FORBID", s.Concurrency)
	}
	return nil
}

func (s Schedule) deadline() time.Duration {
	n := s.StartingDeadlineSeconds
	if n == 0 {
		n = usualDeadline
	}
	return time.Duration(n * float64(time.Second))
}

// Due are the runs that the job's schedules make now, without ids, and the
// schedules with their new Last; next is when to ask again, zero: never. Running
// has the job's runs that have not ended.
//
// Of times that were missed, while no controller led say, only the newest makes
// a run, and only within the starting deadline. With FORBID a time waits, no
// longer than that deadline, for the run before it to end.
func Due(j Job, running []Run, now time.Time) (runs []Run, schedules []Schedule, next time.Time) {
	schedules = slices.Clone(j.Schedules)
	busy := slices.ContainsFunc(running, func(r Run) bool { return !r.Status.Ended() })
	for k := range schedules {
		s := &schedules[k]
		if !s.Enabled {
			continue
		}
		due, err := s.missed(now)
		if err != nil {
			continue // Validate refuses it; nothing ever comes of it
		}
		if !due.IsZero() {
			end := due.Add(s.deadline())
			switch {
			case now.After(end):
				s.Last = due
			case s.Concurrency == Forbid && busy:
				next = sooner(next, end.Add(time.Millisecond))
			default:
				s.Last = due
				busy = true
				runs = append(runs, NewRun(j, s.ID, due, now))
			}
		}
		if following, err := s.Next(now); err == nil && !following.IsZero() {
			next = sooner(next, following)
		}
	}
	return runs, schedules, next
}

// missed is the newest time up to now that has made no run; zero for none. Long
// gaps are not gone through time by time.
func (s *Schedule) missed(now time.Time) (time.Time, error) {
	after := s.Last
	if s.Since.After(after) {
		after = s.Since
	}
	if oldest := now.Add(-s.deadline() - time.Minute); oldest.After(after) {
		after = oldest
	}
	var newest time.Time
	for {
		t, err := s.Next(after)
		if err != nil {
			return time.Time{}, err
		}
		if t.IsZero() || t.After(now) {
			return newest, nil
		}
		newest, after = t, t
	}
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// NewRun is a run of the job as it is now, without an id: due is zero for one
// that a person asks for.
func NewRun(j Job, schedule string, due, now time.Time) Run {
	return Run{Job: j.ID, Schedule: schedule, Status: Initial, CreatedAt: now, Due: due, App: j.App, Restart: j.Restart}
}

// Ready tells whether a job with dependencies is to run: every one of them has
// succeeded since the job last began. Succeeded has when jobs last did.
func Ready(j Job, began time.Time, succeeded map[string]time.Time) bool {
	if len(j.Dependencies) == 0 {
		return false
	}
	for _, d := range j.Dependencies {
		if at, ok := succeeded[d]; !ok || !at.After(began) {
			return false
		}
	}
	return true
}
