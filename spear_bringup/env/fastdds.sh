# Images need a larger shared-memory segment than FastDDS has by default.
if [ -z "${FASTRTPS_DEFAULT_PROFILES_FILE:-}" ]; then
  export FASTRTPS_DEFAULT_PROFILES_FILE="$COLCON_CURRENT_PREFIX/share/spear_bringup/config/fastdds_shm.xml"
fi
