// Package schedule says when backups are due and has them made: cron times in,
// at most one backup at a time out.
//
// What is due is decided from the plan and from a record of what was done, which
// the caller keeps beside the backups: a backup that was missed while the host
// was down is caught up once, whatever became of the host.
//
// It deliberately makes no backups: [Runner.Back] does, and says whether trying
// again soon makes sense.
//
// Start reading at [Plan.Due].
package schedule
