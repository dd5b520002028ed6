package main

import (
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

func TestTopTellsRatesAndTheBusiestFirst(t *testing.T) {
	before, after := services(), services()
	after[0].Connections += 30
	after[0].Backends[1].Connections += 20
	after[0].Backends[0].Connections += 10
	after[0].Backends[0].Failures += 4
	after[2].Connections += 100
	after[2].Refused = 3
	got := loadsBetween(before, after, 2*time.Second)
	if got[0].Name != "dns.default" || got[0].Protocol != api.UDP || got[0].Rate != 50 || got[0].Refused != 3 {
		t.Errorf("first: got %+v, want the service with 50 connections a second", got[0])
	}
	if got[1].Name != "web.shop" || got[1].Rate != 15 || got[1].Failed != 4 {
		t.Errorf("second: got %+v", got[1])
	}
	if got[2].Backend != "10.80.0.12:8080" || got[2].Rate != 10 || got[3].Rate != 5 || got[3].Failed != 4 {
		t.Errorf("its backends: got %+v and %+v", got[2], got[3])
	}
	// A counter that starts anew after the programs were loaded.
	if got := loadsBetween(after, before, time.Second); got[0].Rate != 0 {
		t.Errorf("counters that fell: got %+v, want no rate", got[0])
	}
}
