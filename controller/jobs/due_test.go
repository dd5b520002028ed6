package jobs_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/controller/jobs"
	"pgregory.net/rapid"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

func every(cron string, change ...func(*jobs.Schedule)) jobs.Job {
	s := jobs.Schedule{ID: "s", Cron: cron, Enabled: true, Since: at("2026-03-01T00:00:00Z")}
	for _, f := range change {
		f(&s)
	}
	return jobs.Job{ID: "report", Schedules: []jobs.Schedule{s}}
}

func TestDueMakesOneRunForEachTime(t *testing.T) {
	j := every("*/10 * * * *")
	runs, schedules, next := jobs.Due(j, nil, at("2026-03-01T00:10:03Z"))
	if len(runs) != 1 || !runs[0].Due.Equal(at("2026-03-01T00:10:00Z")) || runs[0].Status != jobs.Initial || runs[0].Schedule != "s" {
		t.Fatalf("runs are %+v", runs)
	}
	if want := at("2026-03-01T00:20:00Z"); !next.Equal(want) {
		t.Errorf("next is %s, want %s", next, want)
	}
	j.Schedules = schedules
	if runs, _, _ := jobs.Due(j, nil, at("2026-03-01T00:10:04Z")); len(runs) != 0 {
		t.Errorf("asked again, runs are %+v", runs)
	}
}

func TestOnlyTheNewestMissedTimeMakesARun(t *testing.T) {
	for _, c := range []struct {
		deadline float64
		want     string
	}{{0, "2026-03-01T05:00:00Z"}, {60, ""}, {7200, "2026-03-01T05:00:00Z"}} {
		j := every("0 * * * *", func(s *jobs.Schedule) { s.StartingDeadlineSeconds = c.deadline })
		runs, _, _ := jobs.Due(j, nil, at("2026-03-01T05:10:00Z"))
		switch {
		case c.want == "" && len(runs) > 0, c.want != "" && (len(runs) != 1 || !runs[0].Due.Equal(at(c.want))):
			t.Errorf("with a deadline of %v s runs are %+v, want %q", c.deadline, runs, c.want)
		}
	}
}

func TestForbidWaitsForTheRunBefore(t *testing.T) {
	j := every("0 * * * *", func(s *jobs.Schedule) { s.Concurrency = jobs.Forbid })
	active := []jobs.Run{{ID: "r1", Job: "report", Status: jobs.Active}}
	runs, schedules, next := jobs.Due(j, active, at("2026-03-01T05:00:01Z"))
	if len(runs) != 0 || !next.Equal(at("2026-03-01T05:15:00.001Z")) {
		t.Fatalf("beside an active run: %+v, next %s", runs, next)
	}
	j.Schedules = schedules
	active[0].Status = jobs.Success
	if runs, _, _ = jobs.Due(j, active, at("2026-03-01T05:05:00Z")); len(runs) != 1 {
		t.Errorf("after its end: %+v", runs)
	}
	active[0].Status = jobs.Active
	if runs, _, next = jobs.Due(j, active, at("2026-03-01T05:16:00Z")); len(runs) != 0 || !next.Equal(at("2026-03-01T06:00:00Z")) {
		t.Errorf("after the deadline: %+v, next %s", runs, next)
	}
}

func TestDisabledScheduleMakesNoRun(t *testing.T) {
	j := every("* * * * *", func(s *jobs.Schedule) { s.Enabled = false })
	if runs, _, next := jobs.Due(j, nil, at("2026-03-02T00:00:00Z")); len(runs) != 0 || !next.IsZero() {
		t.Errorf("runs are %+v, next %s", runs, next)
	}
}

func TestTimezoneAndChangesOfTheClocks(t *testing.T) {
	s := jobs.Schedule{ID: "s", Cron: "30 2 * * *", Timezone: "Europe/Berlin"}
	for after, want := range map[string]string{
		"2026-03-01T00:00:00Z": "2026-03-01T01:30:00Z",
		"2026-03-28T02:00:00Z": "2026-03-30T00:30:00Z", // on the 29th there is no 02:30
		"2026-07-01T00:00:00Z": "2026-07-01T00:30:00Z",
	} {
		got, err := s.Next(at(after))
		if err != nil || !got.Equal(at(want)) {
			t.Errorf("after %s comes %s, %v; want %s", after, got.UTC(), err, want)
		}
	}
	// On October 25th, 02:30 comes twice.
	first, _ := s.Next(at("2026-10-24T12:00:00Z"))
	second, _ := s.Next(first)
	if second.Sub(first) < 20*time.Hour {
		t.Errorf("runs at %s and at %s", first.UTC(), second.UTC())
	}
	hourly := jobs.Schedule{ID: "s", Cron: "30 * * * *", Timezone: "Europe/Berlin"}
	if next, _ := hourly.Next(first); !next.Equal(first.Add(time.Hour)) {
		t.Errorf("every hour, runs at %s and at %s", first.UTC(), next.UTC())
	}
}

func TestValidateNamesTheField(t *testing.T) {
	for field, change := range map[string]func(*jobs.Schedule){
		"id": func(s *jobs.Schedule) { s.ID = "" }, "cron": func(s *jobs.Schedule) { s.Cron = "61 * * * *" },
		"cron: \"0 0 30 2 *\" names": func(s *jobs.Schedule) { s.Cron = "0 0 30 2 *" },
		"timezone":                   func(s *jobs.Schedule) { s.Timezone = "Moon/Crater" },
		"startingDeadlineSeconds":    func(s *jobs.Schedule) { s.StartingDeadlineSeconds = -1 },
		"concurrencyPolicy":          func(s *jobs.Schedule) { s.Concurrency = "REPLACE" },
	} {
		err := every("@daily", change).Schedules[0].Validate()
		if err == nil || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("error is %v, want one of %s", err, field)
		}
	}
	if err := every("@daily").Schedules[0].Validate(); err != nil {
		t.Error(err)
	}
}

func TestReadyWhenEveryDependencyHasSucceededSince(t *testing.T) {
	began := at("2026-03-01T00:00:00Z")
	j := jobs.Job{ID: "c", Dependencies: []string{"a", "b"}}
	done := map[string]time.Time{"a": began.Add(time.Hour), "b": began.Add(-time.Hour)}
	if jobs.Ready(j, began, done) {
		t.Error("ready before b")
	}
	done["b"] = began.Add(time.Minute)
	if !jobs.Ready(j, began, done) {
		t.Error("not ready after both")
	}
}

// However irregularly one asks, no time makes two runs, and none that was asked
// about in time makes none.
func TestEachTimeMakesOneRunHoweverOneAsks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := every(rapid.SampledFrom([]string{"*/7 * * * *", "0 3 * * 1-5", "15,45 * * * *", "@hourly"}).Draw(t, "cron"),
			func(s *jobs.Schedule) { s.Timezone = "America/New_York" })
		now := j.Schedules[0].Since
		made := map[int64]bool{}
		for range rapid.IntRange(1, 100).Draw(t, "times") {
			before := now
			now = now.Add(time.Duration(rapid.IntRange(1, 5000).Draw(t, "seconds")) * time.Second)
			due, err := j.Schedules[0].Next(before)
			if err != nil {
				t.Fatal(err)
			}
			runs, schedules, next := jobs.Due(j, nil, now)
			j.Schedules = schedules
			for _, r := range runs {
				if made[r.Due.Unix()] || r.Due.After(now) {
					t.Fatalf("at %s a run for %s", now, r.Due)
				}
				made[r.Due.Unix()] = true
			}
			if !due.After(now) && now.Sub(due) < 15*time.Minute && len(runs) == 0 {
				t.Fatalf("at %s no run for %s", now, due)
			}
			if !next.After(now) {
				t.Fatalf("at %s, asked to come again at %s", now, next)
			}
		}
	})
}
