"""Where pictures come from: folders of photographs, Ego-Exo4D, BridgeData V2."""
