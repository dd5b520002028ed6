package client

// The paths of the controllers' API.
const (
	PathCA             = "/v1/ca"
	PathCluster        = "/v1/cluster"
	PathJoin           = "/v1/join"
	PathJoinController = "/v1/controllers/join"
	PathJoinOperator   = "/v1/operators/join"
	PathRenew          = "/v1/renew"
	PathLogin          = "/v1/login"
	PathStream         = "/v1/agent/stream"
	PathReport         = "/v1/agent/report"
	PathObjects        = "/v1/objects"
	PathApply          = "/v1/apply"
	PathWatch          = "/v1/watch"
	PathNodes          = "/v1/nodes"
	PathTokens         = "/v1/tokens"
	PathControllers    = "/v1/controllers"
	PathBackup         = "/v1/backup"
	PathAudit          = "/v1/audit"
)

// HeaderCluster has the cluster's id in every answer of a controller.
const HeaderCluster = "Weir-Cluster"
