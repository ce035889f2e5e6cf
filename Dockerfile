# SPEAR on apt ROS 2 Jazzy, by the commands of README.md (test/test_packages.py compares them).
# NOT RUN where it was written: that machine has no Docker.
#
#   docker build -t spear . && docker run --rm --shm-size 1g spear
FROM ros:jazzy
SHELL ["/bin/bash", "-c"]
# Headless rendering of the simulation: MuJoCo with EGL on a CPU.
RUN apt-get update && apt-get install -y --no-install-recommends \
        python3-venv libegl1 libegl-mesa0 libgl1-mesa-dri libgl1
ENV MUJOCO_GL=egl
WORKDIR /ros2_ws
COPY . src/spear
RUN source /opt/ros/jazzy/setup.bash && rosdep update && \
    rosdep install --from-paths src --ignore-src -y
RUN python3 -m venv --system-site-packages venv && touch venv/COLCON_IGNORE && . venv/bin/activate && \
    pip install -c src/spear/requirements/constraints-apt.txt -r src/spear/requirements/robot.txt
RUN source /opt/ros/jazzy/setup.bash && . venv/bin/activate && \
    python3 -m colcon build --symlink-install
CMD source install/setup.bash && . venv/bin/activate && src/spear/.ci/launch_test
