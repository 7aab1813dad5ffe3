package health

import "manada/internal/cluster"

// Conditions of the store.
const (
	StoreNoQuorum    Code = "M-S01"
	StoreVoterDown   Code = "M-S02"
	StoreRolledBack  Code = "M-S03"
	StoreUnreachable Code = "M-S04"
	StoreFewVoters   Code = "M-S05"
	StoreNearlyFull  Code = "M-S06"
)

var storeEntries = []Entry{
	{
		Code: StoreNoQuorum, Severity: cluster.Warning, Title: "The store has no quorum",
		Text: "the store has no quorum ({seen})",
		Hint: "bring a voter back; if a majority is gone for good see docs/how-to.md, \"The store lost its quorum\"",
		Args: []string{"seen"},
		Doc: "No majority of the voters answers. A primary whose standbys of the current epoch still stream goes on " +
			"acknowledging commits, because they prove that no newer epoch can have been won. Until a quorum is back nothing can be " +
			"decided: no failover, no switchover, no degrading, no change of membership.",
	},
	{
		Code: StoreVoterDown, Severity: cluster.Warning, Title: "A voter of the store is down",
		Text: "store voter {node} is down ({up} of {voters} up)",
		Hint: "look at  manada run  on {node}; if the host is gone for good:  manada node remove {node}",
		Args: []string{"up", "voters"},
		Doc:  "The store works on the other voters. The loss of one more may take its quorum and with it automatic failover.",
	},
	{
		Code: StoreRolledBack, Severity: cluster.Warning, Title: "The store was rolled back",
		Text: "the store was rolled back: {node} has obeyed epoch {seen} already",
		Hint: "do not restart anything; see docs/how-to.md, \"The store went back in time\"",
		Args: []string{"seen"},
		Doc: "Every agent remembers on its disk the highest epoch it obeyed and the highest revision it saw. An answer below " +
			"either means that the store was restored from an old copy or made anew. No role changes until it is repaired; the " +
			"primary goes on as it does under loss of the store.",
	},
	{
		Code: StoreUnreachable, Severity: cluster.Warning, Title: "A node cannot reach the store",
		Text: "{node} cannot reach the store",
		Hint: "check the network from {node} to the voters (ports 2379 and 2380), then  manada explain {node}",
		Doc:  "The node cannot promise, win or renew anything. If it is the primary it goes on while its standbys stream.",
	},
	{
		Code: StoreFewVoters, Severity: cluster.Info, Title: "The store does not survive the loss of a voter",
		Text: "the store has {voters} of the 3 voters it needs to survive the loss of one",
		Hint: "run  manada run  on another host (one without a database will do) so that it joins as a voter",
		Args: []string{"voters"},
		Doc:  "With one or two voters, losing the wrong host stops automatic failover. Three voters survive the loss of any one.",
	},
	{
		Code: StoreNearlyFull, Severity: cluster.Warning, Title: "The store nears its quota",
		Text: "the store uses {used} of its quota of {quota}",
		Hint: "find out who writes into it; the log of the process store on the voters tells",
		Args: []string{"used", "quota"},
		Doc:  "At its quota the store refuses every write, which has the effect of losing its quorum. It is compacted every hour by itself.",
	},
}
